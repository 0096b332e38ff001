"""DDP, FSDP2 and synchronised batch norm with a single process give the losses of training without them."""

from __future__ import annotations

import contextlib
import os
import socket

import torch
from gpu.moving_task import clips, model_of
from gpu.record import LeftOut, Record, significant
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

STEPS, TOLERANCE = 5, 2e-2


def run(record: Record, device: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": "0", "WORLD_SIZE": "1"}
    if device == "cuda":
        torch.cuda.set_device(0)
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        for name in ("sifa_net_nano", "sifa_transformer_nano"):
            expected = losses(model_of(name, device), device)
            for way, wrap in {"DDP": ddp, "FSDP2": fsdp, "DDP, SyncBatchNorm": sync}.items():
                with record.part(f"{name}, {way}"):
                    if way.endswith("SyncBatchNorm") and device == "cpu":
                        raise LeftOut("no GPU")
                    found = losses(wrap(model_of(name, device), device), device)
                    apart = max(abs(a - b) for a, b in zip(found, expected, strict=True))
                    record.expect(
                        f"{name}, {way}: the losses of training without",
                        apart < TOLERANCE,  # not so if one is NaN
                        apart=significant(apart),
                        last=significant(found[-1]),
                    )
    finally:
        with contextlib.suppress(Exception):
            distributed.destroy_process_group()


def ddp(model: nn.Module, device: str) -> nn.Module:
    return DistributedDataParallel(model, device_ids=[0] if device == "cuda" else None)


def fsdp(model: nn.Module, device: str) -> nn.Module:
    fully_shard(model, mesh=init_device_mesh(device, (1,)))
    return model


def sync(model: nn.Module, device: str) -> nn.Module:
    return ddp(nn.SyncBatchNorm.convert_sync_batchnorm(model), device)


def losses(model: nn.Module, device: str) -> list[float]:
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.01)
    found = []
    for step in range(STEPS):
        clip, label = clips(step, 8, device)
        optimizer.zero_grad()
        loss = cross_entropy(model(clip), label)
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found
