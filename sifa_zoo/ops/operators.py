"""How the package's operators are registered with PyTorch, so that `torch.compile` and `torch.export` see one node.

`torch.library.register_autograd` does the same for gradients in up to twice the time per call, which on small maps is
more than a GPU needs for the work.

Transforms of `torch.func` come to an operator level by level, outermost last: each `grad` to the kernel that
`differentiate` registers, each `vmap` to the rule that `fold` makes, until plain tensors are left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

Function = Callable[..., Any]

_TAGS = (torch.Tag.pt2_compliant_tag,)


def define(name: str, schema: str, *, run: Function, fake: Function) -> Function:
    """Define and return the operator `sifa::name`: `run` computes it on any device, `fake` only its result's layout."""
    torch.library.define(f"sifa::{name}", schema, tags=_TAGS)
    torch.library.impl(f"sifa::{name}", "CompositeExplicitAutograd")(run)
    torch.library.register_fake(f"sifa::{name}")(fake)
    operator: Function = getattr(torch.ops.sifa, name).default
    return operator


def refuse_onnx() -> None:
    """Raise RuntimeError where the legacy exporter to ONNX is to record an operator; the other one fails by itself."""
    if torch._C._get_tracing_state() and torch.onnx.is_in_onnx_export():
        raise RuntimeError(
            "ONNX has no such operator: call model.set_backend('torch') before the export, or pass backend='torch'"
        )


def below_autograd(operator: Function, *args: Any) -> Any:
    """Call an operator from the forward of the `torch.autograd.Function` that differentiates it."""
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*args)


def differentiate(name: str, operator: Function, function: type[torch.autograd.Function]) -> None:
    """Let a function, which takes the operator's arguments, stand for it wherever a gradient is wanted."""
    at_one_level = _at_one_level(function)

    def kernel(*args: Any) -> Any:
        wanted = torch.is_grad_enabled() and any(isinstance(arg, Tensor) and arg.requires_grad for arg in args)
        if not wanted and forward_ad._current_level < 0:  # the function refuses to differentiate forward
            return below_autograd(operator, *args)
        if torch._C._are_functorch_transforms_active():
            with enable_single_level_autograd_function():
                return at_one_level.apply(*args)
        return function.apply(*args)

    torch.library.impl(f"sifa::{name}", "Autograd")(kernel)


def _at_one_level(function: type[torch.autograd.Function]) -> Any:
    """The function for one transform of `torch.func`, among those under way; its forward goes on to the next."""

    def forward(ctx: Any, *args: Any) -> Any:
        with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):  # they were switched off for this level only
            return function.forward(ctx, *args)

    parts = {"forward": forward, "backward": function.backward}
    return type(function.__name__, (_SingleLevelFunction,), {name: staticmethod(part) for name, part in parts.items()})


def define_gradients(name: str, schema: str, *, run: Function, fake: Function) -> Function:
    """Define and return an operator that computes gradients: to differentiate those is an error."""
    operator = define(name, schema, run=run, fake=fake)

    class Gradients(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            return below_autograd(operator, *args)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            raise_twice()

    differentiate(name, operator, Gradients)
    torch.library.register_vmap(f"sifa::{name}", fold(operator))
    return operator


def raise_twice() -> None:
    """What the gradient of a gradient is."""
    raise RuntimeError("SIFA's operators cannot be differentiated twice")


def call_gradients(operator: Function, *args: Any) -> Any:
    """Call such an operator from a `backward`, where gradients of gradients are seldom wanted."""
    return operator(*args) if torch.is_grad_enabled() else below_autograd(operator, *args)


def fold(function: Function) -> Function:
    """The `vmap` rule of a function whose tensors all begin with a batch, and which treats each part of it alone.

    The mapped dimension becomes part of the batch; a tensor that is not mapped is repeated.
    """

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        def join(tensor: Tensor, dim: int | None) -> Tensor:
            mapped = tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            return mapped.flatten(0, 1)

        def part(tensor: Tensor) -> Tensor:
            return tensor.unflatten(0, (info.batch_size, tensor.shape[0] // info.batch_size))

        pairs = zip(args, in_dims, strict=True)
        out = function(*[join(arg, dim) if isinstance(arg, Tensor) else arg for arg, dim in pairs])
        return (part(out), 0) if isinstance(out, Tensor) else (tuple(map(part, out)), (0,) * len(out))

    return rule


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
