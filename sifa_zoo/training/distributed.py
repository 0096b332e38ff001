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

_LEAST_SHARE, _MOST_SHARE = 1 / 200, 1 / 4  # of the parameters: many small pieces are slow, large ones take memory
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

    The units that are gathered for their turn and then released are modules that the model calls, such as blocks. The
    weights of small ones stay with the model's own, which are gathered throughout.

    Raises:
        ValueError: If there is only one process.
    """
    if world_size() == 1:
        raise ValueError("fsdp needs several processes: start them with torchrun --nproc-per-node N")
    mesh = init_device_mesh(device.type, (world_size(),))
    for name in units(model):
        fully_shard(model.get_submodule(name), mesh=mesh)
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


def units(model: nn.Module) -> list[str]:
    """Names of the modules to gather one by one: those that are called, with at most a quarter of the weights.

    One with more is divided further, unless nothing in it is called.
    """
    called = called_modules(model)
    total = _num_parameters(model)
    found: list[str] = []
    for name in called:  # a module comes before what is inside it
        share = _num_parameters(model.get_submodule(name)) / total
        whole = share <= _MOST_SHARE or not any(other.startswith(f"{name}.") for other in called)
        if whole and share >= _LEAST_SHARE and not any(name.startswith(f"{unit}.") for unit in found):
            found.append(name)
    return found


def called_modules(model: nn.Module) -> list[str]:
    """Names of the modules that the model's forward calls, each before those inside it."""
    called: list[str] = []
    trial = copy.deepcopy(model).to("meta").eval()
    for name, module in trial.named_modules():
        module.register_forward_pre_hook(lambda _module, _args, name=name: called.append(name))
    size, num_frames = cast(Any, model).img_size, cast(Any, model).num_frames
    trial(torch.empty(1, cast(Any, model).in_chans, num_frames, *size, device="meta"))
    return [name for name in dict.fromkeys(called) if name]


def _num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
