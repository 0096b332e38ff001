"""One model on several processes: gradients averaged by DDP, or weights divided among them by FSDP2."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from sifa_zoo.runtime.processes import world_size

_LEAST_SHARE = 1 / 200  # of the model's parameters: gathering many small pieces is slow
_FULL = StateDictOptions(full_state_dict=True)
_FULL_ON_CPU = StateDictOptions(full_state_dict=True, cpu_offload=True)


def sync_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with batch norms that compute statistics over all processes.

    Raises:
        ValueError: If the device is a CPU: PyTorch has SyncBatchNorm for GPUs only.
    """
    if device.type != "cuda":
        raise ValueError(f"sync_bn needs GPUs: PyTorch has no SyncBatchNorm for {device.type}; leave it out")
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def divide(model: nn.Module, device: torch.device) -> None:
    """Divide weights, gradients and the state of an optimiser made afterwards among the processes (FSDP2).

    The units that are gathered for their turn and then released are the large modules that the model calls, such as an
    attention or a convolution; blocks are not called, since the model walks them itself. The weights of small modules
    stay with the model's own, which are gathered throughout.

    Raises:
        ValueError: If there is only one process.
    """
    if world_size() == 1:
        raise ValueError("fsdp needs several processes: start them with torchrun --nproc-per-node N")
    mesh = init_device_mesh(device.type, (world_size(),))
    least = _num_parameters(model) * _LEAST_SHARE
    for name in called_modules(model):
        if _num_parameters(module := model.get_submodule(name)) >= least:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def replicate(model: nn.Module, device: torch.device) -> nn.Module:
    """The module to call in training: under `torchrun`, the model in DDP, which keeps weights the same everywhere."""
    if world_size() == 1 or isinstance(model, FSDPModule):
        return model
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Keep all weights of a divided model here, so that processes may call it a different number of times."""
    if not isinstance(model, FSDPModule):
        yield
        return
    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    model.set_reshard_after_forward(False)
    for unit in units:
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
        model.set_reshard_after_forward(True)


def model_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's state_dict; for a divided one, complete on the writer and empty elsewhere. All must call it."""
    if isinstance(model, FSDPModule):
        return cast(dict[str, Tensor], get_model_state_dict(model, options=_FULL_ON_CPU))
    return model.state_dict()


def optimizer_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """The optimiser's state_dict, likewise."""
    if isinstance(model, FSDPModule):
        return get_optimizer_state_dict(model, optimizer, options=_FULL_ON_CPU)
    return optimizer.state_dict()


def load_states(model: nn.Module, optimizer: Optimizer, states: dict[str, Any]) -> None:
    """Load `model` and `optimizer` of `states`, as the functions above return them, on every process."""
    if isinstance(model, FSDPModule):
        set_model_state_dict(model, states["model"], options=_FULL)
        set_optimizer_state_dict(model, optimizer, states["optimizer"], options=_FULL)
    else:
        model.load_state_dict(states["model"])
        optimizer.load_state_dict(states["optimizer"])


def called_modules(model: nn.Module) -> list[str]:
    """Names of the modules that the model's forward calls, without those inside other such modules."""
    called: list[str] = []
    trial = copy.deepcopy(model).to("meta").eval()
    for name, module in trial.named_modules():
        module.register_forward_pre_hook(lambda _module, _args, name=name: called.append(name))
    size, num_frames = cast(Any, model).img_size, cast(Any, model).num_frames
    trial(torch.empty(1, 3, num_frames, *size, device="meta"))
    names = dict.fromkeys(name for name in called if name)
    return [name for name in names if not any(name[:end] in names for end in _dots(name))]


def _dots(name: str) -> list[int]:
    return [place for place, letter in enumerate(name) if letter == "."]


def _num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
