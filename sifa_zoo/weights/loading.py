"""Puts the tensors of weights into a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sifa_zoo.models.clip_model import ClipModel
from sifa_zoo.models.convert import ConversionError, checkpoint_filter_fn, inflate, state_dict_faults
from sifa_zoo.weights.hub import MismatchError

_INIT = ("normal_", "uniform_", "erfinv_", "clamp_", "mul_", "add_", "fill_", "zero_", "copy_", "kaiming_uniform_")


def load_weights(
    model: ClipModel, state_dict: Mapping[str, Tensor], *, source: str, device: torch.device | str
) -> None:
    """Load tensors by name, all of them; stem and position tables are fitted to the model first.

    Args:
        model: A model on the meta device, which is never initialised: it takes over the tensors.
        state_dict: Tensors in this project's names.
        source: Where they come from, for messages.
        device: Where to put the tensors.

    Raises:
        MismatchError: If a tensor is missing, left over or misshapen, or holds integers where the model has floats; at
            most 20 are listed.
    """
    target = model.state_dict()
    _refuse_integers(target, state_dict, source)
    try:
        fitted = checkpoint_filter_fn(state_dict, model)
    except ConversionError as error:
        raise MismatchError(f"{source}: {error}") from error
    if faults := state_dict_faults(target, fitted):
        raise MismatchError(f"{source} does not fit {type(model).__name__}: {'; '.join(faults)}")
    loaded = {name: fitted[name].to(device, like.dtype) for name, like in target.items()}
    model.load_state_dict(loaded, strict=True, assign=True)
    model.init_non_persistent_buffers()


def load_planar_weights(
    model: ClipModel, state_dict: Mapping[str, Tensor], *, source: str, device: torch.device | str
) -> None:
    """Load a 2D ImageNet checkpoint in timm's names into a model on the meta device; what it lacks is initialised."""
    model.init_added(device)
    try:
        inflated = inflate(state_dict, model)
    except ConversionError as error:
        raise MismatchError(f"{source}: {error}") from error
    load_weights(model, inflated, source=source, device=device)


def _refuse_integers(target: Mapping[str, Tensor], state_dict: Mapping[str, Tensor], source: str) -> None:
    found = [
        f"{name} {str(tensor.dtype).removeprefix('torch.')}"
        for name, tensor in state_dict.items()
        if name in target and target[name].is_floating_point() and not tensor.is_floating_point()
    ]
    if found:
        raise MismatchError(
            f"{source}: {len(found)} tensors do not hold floating-point numbers, as the model does: "
            f"{', '.join(found[:20])}{' ...' if len(found) > 20 else ''}; quantised weights are not loaded, so save "
            "them in float32, float16 or bfloat16"
        )


class SkipInit(TorchFunctionMode):
    """Skips the initialisation of tensors on the meta device, which takes time and does nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensor = args[0] if args else kwargs.get("tensor")  # as `torch.nn.init` hands it over
        if getattr(func, "__name__", "") in _INIT and isinstance(tensor, Tensor) and tensor.is_meta:
            return tensor
        return func(*args, **kwargs)
