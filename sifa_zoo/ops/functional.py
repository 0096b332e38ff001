"""Stand-alone inter-frame attention as one PyTorch operator, `sifa::inter_frame_attention`.

Source: SIFA, CVPR 2022 (https://arxiv.org/abs/2206.06931), section 3, and the authors' code. `reference.py` holds the
arithmetic; here are its schema, its checks and its registration, so that `torch.compile` and `torch.export` see one
node.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sifa_zoo.ops import reference

_NO_NATIVE_KERNEL = "this version of sifa_zoo has no native {} kernel; use backend='torch' or 'auto'"


def backends() -> dict[str, bool | str]:
    """Which implementations of the operator can run.

    Returns:
        For each backend True, or the reason why it cannot run.
    """
    return {"cuda": _NO_NATIVE_KERNEL.format("CUDA"), "cpu": _NO_NATIVE_KERNEL.format("CPU"), "torch": True}


def inter_frame_attention(
    x: Tensor, offset: Tensor, *, kernel_size: int = 3, dilation: int = 1, backend: str = "auto"
) -> Tensor:
    """Attend from each location of a frame to a deformable neighbourhood in the next frame.

    The query is frame t; keys and values are frame t+1, sampled bilinearly at a `kernel_size` x `kernel_size` grid that
    is moved by the offsets stored at t+1. The weight of a tap is the dot product of query and key divided by C, without
    a softmax, and the result is the weighted sum of the values. A sample outside the frame counts as zero. Runs on any
    device; autocast does not touch it: it accumulates in float32 (float64 for float64 input) whatever comes in.

    Args:
        x: Features `(N, C, T, H, W)`, any floating dtype and memory format.
        offset: Displacements in pixels `(N, 2*kernel_size**2, T, H, W)`; channel `2k` is the row and `2k + 1` the
            column of tap k, taps counted row by row. Those of frame 0 are never used.
        kernel_size: K, taps per row and column.
        dilation: Distance between neighbouring taps, in pixels.
        backend: "auto" or a key of `backends()`.

    Returns:
        A tensor like `x`, in its memory format. The last frame is zero: no frame follows it.

    Raises:
        ValueError: If shapes do not fit together, or the backend is unknown.
        TypeError: If `x` or `offset` is not of a floating dtype.
        RuntimeError: If `backend` names one that cannot run here.

    Example:
        >>> x = torch.randn(1, 8, 4, 7, 9)
        >>> inter_frame_attention(x, torch.zeros(1, 18, 4, 7, 9)).shape
        torch.Size([1, 8, 4, 7, 9])
    """
    _check(x, offset, kernel_size, dilation)
    available = backends()
    if backend != "auto" and backend not in available:
        raise ValueError(f"backend must be 'auto' or one of {sorted(available)}, got {backend = }")
    if backend != "auto" and available[backend] is not True:
        raise RuntimeError(f"{backend = } cannot run: {available[backend]}")
    return _operator(x, offset, kernel_size, dilation)


@torch.library.custom_op("sifa::inter_frame_attention", mutates_args=())
def _operator(x: Tensor, offset: Tensor, kernel_size: int, dilation: int) -> Tensor:
    return reference.forward(x, offset, kernel_size, dilation)


@torch.library.custom_op("sifa::inter_frame_attention_backward", mutates_args=())
def _backward_operator(
    grad: Tensor, x: Tensor, offset: Tensor, kernel_size: int, dilation: int
) -> tuple[Tensor, Tensor]:
    return reference.backward(grad, x, offset, kernel_size, dilation)


@_operator.register_fake
def _(x: Tensor, offset: Tensor, kernel_size: int, dilation: int) -> Tensor:
    return torch.empty_like(x)


@_backward_operator.register_fake
def _(grad: Tensor, x: Tensor, offset: Tensor, kernel_size: int, dilation: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(offset)


def _setup_context(ctx, inputs, output) -> None:
    x, offset, ctx.kernel_size, ctx.dilation = inputs
    ctx.save_for_backward(x, offset)  # the samples are taken again in backward: K*K of them would not fit


def _backward(ctx, grad: Tensor):
    x, offset = ctx.saved_tensors
    grad_x, grad_offset = _backward_operator(grad, x, offset, ctx.kernel_size, ctx.dilation)
    return grad_x, grad_offset, None, None


_operator.register_autograd(_backward, setup_context=_setup_context)


def _check(x: Tensor, offset: Tensor, kernel_size: int, dilation: int) -> None:
    if kernel_size < 1 or dilation < 1:
        raise ValueError(f"kernel_size and dilation must be at least 1, got {kernel_size = }, {dilation = }")
    if x.ndim != 5 or 0 in x.shape[1:]:
        raise ValueError(f"x must be (N, C, T, H, W), empty in N only, got shape {tuple(x.shape)}")
    expected = (x.shape[0], 2 * kernel_size**2, *x.shape[2:])
    if offset.shape != expected:
        raise ValueError(f"offset must be (N, 2*K*K, T, H, W) = {expected}, got {tuple(offset.shape)}")
    if not (x.is_floating_point() and offset.is_floating_point()):
        raise TypeError(f"x and offset must be floating point, got {x.dtype} and {offset.dtype}")
    if x.device != offset.device:
        raise ValueError(f"x and offset must be on one device, got {x.device} and {offset.device}")
