"""How the package's operators are registered with PyTorch, so that `torch.compile` and `torch.export` see one node.

`torch.library.register_autograd` does the same for gradients in up to twice the time per call, which on small maps is
more than a GPU needs for the work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

Function = Callable[..., Any]

_TAGS = (torch.Tag.pt2_compliant_tag,)


def define(name: str, schema: str, *, run: Function, fake: Function) -> Function:
    """Define and return the operator `sifa::name`: `run` computes it on any device, `fake` only its result's layout."""
    torch.library.define(f"sifa::{name}", schema, tags=_TAGS)
    torch.library.impl(f"sifa::{name}", "CompositeExplicitAutograd")(run)
    torch.library.register_fake(f"sifa::{name}")(fake)
    operator: Function = getattr(torch.ops.sifa, name).default
    return operator


def below_autograd(operator: Function, *args: Any) -> Any:
    """Call an operator from the forward of the `torch.autograd.Function` that differentiates it."""
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*args)


def differentiate(name: str, operator: Function, function: type[torch.autograd.Function]) -> None:
    """Let a function, which takes the operator's arguments, stand for it wherever a gradient is wanted."""

    def kernel(*args: Any) -> Any:
        wanted = torch.is_grad_enabled() and any(isinstance(arg, Tensor) and arg.requires_grad for arg in args)
        if wanted or forward_ad._current_level >= 0:  # the function refuses to differentiate forward
            return function.apply(*args)
        return below_autograd(operator, *args)

    torch.library.impl(f"sifa::{name}", "Autograd")(kernel)


def once(gradients: Function) -> Function:
    """A `backward` that cannot be differentiated itself; PyTorch's mark for this is costly, and seldom needed."""
    marked = once_differentiable(gradients)

    def backward(ctx: Any, *grads: Tensor) -> Any:
        return (marked if torch.is_grad_enabled() else gradients)(ctx, *grads)

    return backward


def under_autocast(name: str, operator: Function, cast: Callable[..., tuple[Any, ...]]) -> None:
    """Let `cast(dtype, *args)` change the operator's arguments under autocast to `dtype`."""
    for device_type in ("cpu", "cuda"):
        key = getattr(torch._C.DispatchKey, f"Autocast{device_type.upper()}")
        torch.library.impl(f"sifa::{name}", key.name)(_autocast_kernel(operator, cast, key, device_type))


def _autocast_kernel(operator: Function, cast: Callable[..., tuple[Any, ...]], key: Any, device_type: str) -> Function:
    keys = torch._C.DispatchKeySet(key)

    def kernel(*args: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return operator(*cast(torch.get_autocast_dtype(device_type), *args))

    return kernel
