"""What surrounds inter-frame attention, each as one operator that reads and writes every number once.

`sifa::motion_saliency`, from which offsets are predicted, and `sifa::add_context`, the end of a block of SIFA-Net with
global context. `reference.py` holds the arithmetic in PyTorch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sifa_zoo.ops import native, reference
from sifa_zoo.ops.kernels import DTYPES
from sifa_zoo.ops.operators import (
    below_autograd,
    call_gradients,
    define,
    define_gradients,
    differentiate,
    fold,
    refuse_onnx,
    under_autocast,
)

_NARROWING = ((torch.float32, torch.float16), (torch.float32, torch.bfloat16))


def motion_saliency(clip: Tensor, *, backend: str = "auto") -> Tensor:
    """Features raised where they grew since the previous frame: `f * (1 + sigmoid(f - f_prev))`.

    The published code shifts a tensor onto itself for `f_prev`, which copies frame 0 everywhere or races.

    Args:
        clip: Features `(B, C, T, H, W)`, any floating dtype and memory format.
        backend: As of `inter_frame_attention`; all but "torch" take the native kernel where there is one.

    Returns:
        The saliency of frames 1 to T-1, `(B, C, T-1, H, W)`: nothing precedes frame 0. Under autocast it has its dtype.

    Raises:
        ValueError: If the shape is another.
        TypeError: If the dtype is not floating.

    Example:
        >>> motion_saliency(torch.ones(1, 1, 2, 1, 1)).item()
        1.5
    """
    _check_clip(clip)
    if backend == "torch":
        frame, previous = clip[:, :, 1:], clip[:, :, :-1]
        return torch.addcmul(frame, frame, torch.sub(frame, previous).sigmoid_())
    refuse_onnx()
    saliency: Tensor = _SALIENCY(clip, clip.dtype)
    return saliency


def add_context(frames: Tensor, context: Tensor, shortcut: Tensor, *, backend: str = "auto") -> Tensor:
    """`relu(frames + context + shortcut)`, with one vector of context for all frames of a clip.

    Args:
        frames: `(B*T, C, H, W)`, any floating dtype and memory format.
        context: `(B, C)`.
        shortcut: Like `frames`.
        backend: As of `inter_frame_attention`; all but "torch" take the native kernel where there is one.

    Returns:
        A tensor like `frames`, in the wider dtype of it and the shortcut.

    Raises:
        ValueError: If shapes do not fit together.
        TypeError: If a dtype is not floating.

    Example:
        >>> add_context(torch.ones(2, 1, 1, 1), torch.ones(1, 1), torch.ones(2, 1, 1, 1)).flatten()
        tensor([3., 3.])
    """
    if frames.dtype != shortcut.dtype:
        dtype = torch.promote_types(frames.dtype, shortcut.dtype)
        frames, shortcut = frames.to(dtype), shortcut.to(dtype)
    if backend == "torch":
        _check_context(frames, context, shortcut)
        return reference.add_context(frames, context, shortcut)
    refuse_onnx()
    total: Tensor = _CONTEXT(frames, context, shortcut)
    return total


def _check_clip(clip: Tensor, dtype: torch.dtype | None = None) -> None:
    if clip.ndim != 5 or 0 in clip.shape[1:]:
        raise ValueError(f"clip must be (B, C, T, H, W), empty in B only, got shape {tuple(clip.shape)}")
    if clip.dtype not in DTYPES:
        raise TypeError(f"clip must be floating point, of 16 to 64 bits, got {clip.dtype}")
    if dtype not in (None, clip.dtype) and (clip.dtype, dtype) not in _NARROWING:
        raise TypeError(f"saliency must be of the clip's dtype, or float16 or bfloat16 of float32, got {dtype}")


def _check_context(frames: Tensor, context: Tensor, shortcut: Tensor) -> None:
    batch, channels = context.shape if context.ndim == 2 else (0, 0)
    if frames.ndim != 4 or channels != frames.shape[1] or (frames.shape[0] % batch if batch else frames.shape[0]):
        raise ValueError(f"frames (B*T, C, H, W) need context (B, C), got {(*frames.shape,)} and {(*context.shape,)}")
    if shortcut.shape != frames.shape or shortcut.dtype != frames.dtype:
        raise ValueError(f"shortcut must be like frames, got {(*shortcut.shape,)} {shortcut.dtype}")
    if frames.dtype not in DTYPES or not context.is_floating_point():
        raise TypeError(f"all must be floating point, of 16 to 64 bits, got {frames.dtype} and {context.dtype}")
    if not frames.device == context.device == shortcut.device:
        raise ValueError(f"all must be on one device, got {frames.device}, {context.device} and {shortcut.device}")


# The operators


def _run_saliency(clip: Tensor, dtype: torch.dtype) -> Tensor:
    _check_clip(clip, dtype)
    kernels = native.kernels_for(clip.device.type)
    return reference.saliency(clip, dtype) if kernels is None else kernels.saliency(clip, dtype)


def _run_saliency_backward(grad: Tensor, clip: Tensor) -> Tensor:
    _check_clip(clip, grad.dtype)
    if grad.shape != clip[:, :, 1:].shape or grad.device != clip.device:
        raise ValueError(f"grad must be like the saliency of {(*clip.shape,)}, got {(*grad.shape,)} on {grad.device}")
    kernels = native.kernels_for(clip.device.type)
    return reference.saliency_backward(grad, clip) if kernels is None else kernels.saliency_backward(grad, clip)


def _run_context(frames: Tensor, context: Tensor, shortcut: Tensor) -> Tensor:
    _check_context(frames, context, shortcut)
    kernels = native.kernels_for(frames.device.type)
    if kernels is None:
        return reference.add_context(frames, context, shortcut)
    return kernels.add_context(frames, context, shortcut)


_SALIENCY = define(
    "motion_saliency",
    "(Tensor clip, ScalarType dtype) -> Tensor",
    run=_run_saliency,
    fake=lambda clip, dtype: torch.empty_like(clip[:, :, 1:], dtype=dtype),
)
_SALIENCY_BACKWARD = define_gradients(
    "motion_saliency_backward",
    "(Tensor grad, Tensor clip) -> Tensor",
    run=_run_saliency_backward,
    fake=lambda grad, clip: torch.empty_like(clip),
)
_CONTEXT = define(
    "add_context",
    "(Tensor frames, Tensor context, Tensor shortcut) -> Tensor",
    run=_run_context,
    fake=lambda frames, context, shortcut: torch.empty_like(frames),
)


class _Saliency(torch.autograd.Function):
    @staticmethod
    def forward(ctx, clip: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(clip)
        saliency: Tensor = below_autograd(_SALIENCY, clip, dtype)
        return saliency

    @staticmethod
    def backward(ctx, grad: Tensor):
        return call_gradients(_SALIENCY_BACKWARD, grad, *ctx.saved_tensors), None


class _Context(torch.autograd.Function):
    @staticmethod
    def forward(ctx, frames: Tensor, context: Tensor, shortcut: Tensor) -> Tensor:
        total: Tensor = below_autograd(_CONTEXT, frames, context, shortcut)
        ctx.save_for_backward(total)
        ctx.batch, ctx.dtype = context.shape[0], context.dtype
        return total

    @staticmethod
    def backward(ctx, grad: Tensor):
        (total,) = ctx.saved_tensors
        grad = torch.ops.aten.threshold_backward(grad, total, 0)
        clips = grad.reshape(ctx.batch, grad.shape[0] // max(1, ctx.batch), *grad.shape[1:])
        return grad, clips.sum((1, 3, 4), dtype=ctx.dtype), grad


def _cast_saliency(dtype: torch.dtype, clip: Tensor, wanted: torch.dtype) -> tuple[Any, ...]:
    """What is narrower than float32 is cast first, to come out in the same dtype."""
    if clip.dtype == torch.float64:
        return clip, wanted
    return (clip if clip.dtype == torch.float32 else clip.to(dtype)), dtype


differentiate("motion_saliency", _SALIENCY, _Saliency)
under_autocast("motion_saliency", _SALIENCY, _cast_saliency)
differentiate("add_context", _CONTEXT, _Context)
torch.library.register_vmap("sifa::motion_saliency", fold(_SALIENCY))
torch.library.register_vmap("sifa::add_context", fold(_CONTEXT))
