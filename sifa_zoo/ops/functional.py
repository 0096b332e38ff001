"""Stand-alone inter-frame attention as one PyTorch operator, `sifa::inter_frame_attention`.

Source: SIFA, CVPR 2022 (https://arxiv.org/abs/2206.06931), section 3, and the authors' code. Here are the operator's
schema, its checks, and its fake, autograd and autocast rules. `reference.py` holds the arithmetic in PyTorch, which
runs wherever no native kernel is loaded; `native.py` loads those.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sifa_zoo.ops import native, reference
from sifa_zoo.ops.kernels import DTYPES, Kernels
from sifa_zoo.ops.operators import (
    below_autograd,
    call_gradients,
    define,
    define_gradients,
    differentiate,
    fold,
    raise_twice,
    refuse_onnx,
    under_autocast,
)


def inter_frame_attention(
    x: Tensor,
    offset: Tensor,
    *,
    kernel_size: int = 3,
    dilation: int = 1,
    residual: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Attend from each location of a frame to a deformable neighbourhood in the next frame.

    The query is frame t; keys and values are frame t+1, sampled bilinearly at a `kernel_size` x `kernel_size` grid that
    is moved by the offsets stored at t+1. The weight of a tap is the dot product of query and key divided by C, without
    a softmax, and the result is the weighted sum of the values. A sample outside the frame counts as zero.

    Sums are taken in float32 (float64 for float64 input), whatever dtype comes in. Under autocast `x` is cast and the
    offsets stay as they are. The native kernels read channels_last_3d memory without copying it, never store the
    samples, and are deterministic on a CPU; on a GPU they are after `torch.use_deterministic_algorithms(True)`.

    Args:
        x: Features `(N, C, T, H, W)`, any floating dtype and memory format.
        offset: Displacements in pixels `(N, 2*kernel_size**2, T, H, W)`, any floating dtype; channel `2k` is the row
            and `2k + 1` the column of tap k, taps counted row by row. Those of frame 0 are not used, and may be left
            out.
        kernel_size: K, taps per row and column.
        dilation: Distance between neighbouring taps, in pixels.
        residual: Add `x` to the result.
        backend: "auto" takes the native kernel of the tensors' device, or plain PyTorch with one warning where there is
            none. "cpu" and "cuda" require it. "torch" is plain PyTorch, which leaves only PyTorch's own operators in a
            graph, as ONNX needs.

    Returns:
        A tensor like `x`, in its memory format. No frame follows the last one: there it is zero, or with `residual`
        that frame of `x`.

    Raises:
        ValueError: If shapes do not fit together, or the backend is unknown or of another device.
        TypeError: If `x` or `offset` is not of a floating dtype.
        RuntimeError: If `backend` names one that cannot run here; on differentiating twice, or forward; on export to
            ONNX with another backend than "torch".

    Example:
        >>> x = torch.randn(1, 8, 4, 7, 9)
        >>> inter_frame_attention(x, torch.zeros(1, 18, 4, 7, 9)).shape
        torch.Size([1, 8, 4, 7, 9])
    """
    check_backend(backend)
    if offset.ndim == 5 and offset.shape[2:3] == x.shape[2:3]:
        offset = offset[:, :, 1:]
    if backend == "torch":
        return _decomposed(x, offset, kernel_size, dilation, residual)
    if backend != "auto" and x.device.type != backend:
        raise ValueError(f"{backend = } needs tensors on that device, got {x.device}")
    if backend != "auto" and not torch.compiler.is_compiling():
        found = native.load(backend, may_build=True)
        if not isinstance(found, Kernels):
            raise RuntimeError(f"{backend = } cannot run: {found}")
    refuse_onnx()
    attended: Tensor = _FORWARD(x, offset, kernel_size, dilation, residual)
    return attended


def check_backend(backend: str) -> None:
    """Raise ValueError unless there is a backend of this name."""
    if backend not in ("auto", "torch", *native.DEVICES):
        raise ValueError(f"backend must be 'auto', 'torch', 'cpu' or 'cuda', got {backend = }")


def _check(x: Tensor, offset: Tensor, kernel_size: int, dilation: int) -> None:
    if kernel_size < 1 or dilation < 1:
        raise ValueError(f"kernel_size and dilation must be at least 1, got {kernel_size = }, {dilation = }")
    if x.ndim != 5 or 0 in x.shape[1:]:
        raise ValueError(f"x must be (N, C, T, H, W), empty in N only, got shape {tuple(x.shape)}")
    n, _, t, h, w = x.shape
    expected = (n, 2 * kernel_size**2, t - 1, h, w)
    if offset.shape != expected:
        raise ValueError(f"offset must be (N, 2*K*K, T or T - 1, H, W) = {expected}, got {tuple(offset.shape)}")
    if not (x.dtype in DTYPES and offset.is_floating_point()):
        raise TypeError(f"x and offset must be floating point, of 16 to 64 bits, got {x.dtype} and {offset.dtype}")
    if x.device != offset.device:
        raise ValueError(f"x and offset must be on one device, got {x.device} and {offset.device}")


def _check_gradient(grad: Tensor, x: Tensor) -> None:
    if grad.shape != x.shape or grad.dtype != x.dtype or grad.device != x.device:
        raise ValueError(f"grad must be like x, {x.dtype} {tuple(x.shape)}, got {grad.dtype} {tuple(grad.shape)}")


# The operators


def _run_forward(x: Tensor, offset: Tensor, kernel_size: int, dilation: int, residual: bool) -> Tensor:
    _check(x, offset, kernel_size, dilation)
    kernels = native.kernels_for(x.device.type)
    if kernels is None:
        return reference.forward(x, offset, kernel_size, dilation, residual)
    return kernels.attention(x, offset, kernel_size, dilation, residual)


def _run_backward(
    grad: Tensor, x: Tensor, offset: Tensor, kernel_size: int, dilation: int, residual: bool, ordered: bool
) -> tuple[Tensor, Tensor]:
    _check(x, offset, kernel_size, dilation)
    _check_gradient(grad, x)
    kernels = native.kernels_for(x.device.type)
    if kernels is None:
        return reference.backward(grad, x, offset, kernel_size, dilation, residual)
    return kernels.attention_backward(grad, x, offset, kernel_size, dilation, residual, ordered=ordered)


def _fake_forward(x: Tensor, offset: Tensor, kernel_size: int, dilation: int, residual: bool) -> Tensor:
    _check(x, offset, kernel_size, dilation)
    return torch.empty_like(x)


def _fake_backward(
    grad: Tensor, x: Tensor, offset: Tensor, kernel_size: int, dilation: int, residual: bool, ordered: bool
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(offset)


_ARGUMENTS = "Tensor x, Tensor offset, int kernel_size, int dilation, bool residual"
_FORWARD = define("inter_frame_attention", f"({_ARGUMENTS}) -> Tensor", run=_run_forward, fake=_fake_forward)
_BACKWARD = define_gradients(
    "inter_frame_attention_backward",
    f"(Tensor grad, {_ARGUMENTS}, bool ordered) -> (Tensor, Tensor)",
    run=_run_backward,
    fake=_fake_backward,
)


class _Attention(torch.autograd.Function):
    """Saves the inputs: the samples are taken again in backward, K*K of them would not fit."""

    @staticmethod
    def forward(ctx, x: Tensor, offset: Tensor, *sizes: Any) -> Tensor:
        ctx.save_for_backward(x, offset)
        ctx.sizes = sizes
        attended: Tensor = below_autograd(_FORWARD, x, offset, *sizes)
        return attended

    @staticmethod
    def backward(ctx, grad: Tensor):
        ordered = torch.are_deterministic_algorithms_enabled()
        return *call_gradients(_BACKWARD, grad, *ctx.saved_tensors, *ctx.sizes, ordered), None, None, None


def _cast(dtype: torch.dtype, x: Tensor, offset: Tensor, *sizes: Any) -> tuple[Any, ...]:
    """As PyTorch's own autocast, which leaves float64 alone."""
    return (x if torch.float64 in (x.dtype, offset.dtype) else x.to(dtype), offset, *sizes)


differentiate("inter_frame_attention", _FORWARD, _Attention)
under_autocast("inter_frame_attention", _FORWARD, _cast)
torch.library.register_vmap("sifa::inter_frame_attention", fold(_FORWARD))


# The same in PyTorch's own operators


_AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")  # in PyTorch 2.10, a graph cannot hold the question for them


class _Reference(torch.autograd.Function):
    """With its own backward: autograd's would keep every sample."""

    @staticmethod
    def forward(x: Tensor, offset: Tensor, kernel_size: int, dilation: int, residual: bool) -> Tensor:
        return reference.forward(x, offset, kernel_size, dilation, residual)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, offset, *ctx.sizes = inputs
        ctx.save_for_backward(x, offset)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return *_ReferenceGradients.apply(grad, *ctx.saved_tensors, *ctx.sizes), None, None, None

    @staticmethod
    def vmap(info, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        return fold(_Reference.apply)(info, in_dims, *args)


class _ReferenceGradients(torch.autograd.Function):
    @staticmethod
    def forward(
        grad: Tensor, x: Tensor, offset: Tensor, kernel_size: int, dilation: int, residual: bool
    ) -> tuple[Tensor, Tensor]:
        return reference.backward(grad, x, offset, kernel_size, dilation, residual)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx, *grads: Tensor) -> None:
        raise_twice()

    @staticmethod
    def vmap(info, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        return fold(_ReferenceGradients.apply)(info, in_dims, *args)


def _decomposed(x: Tensor, offset: Tensor, *sizes: Any) -> Tensor:
    _check(x, offset, *sizes[:2])
    device_type = x.device.type
    if device_type in _AUTOCAST_DEVICES and torch.is_autocast_enabled(device_type):
        x, offset = _cast(torch.get_autocast_dtype(device_type), x, offset)
        with torch.autocast(device_type, enabled=False):
            return _decomposed(x, offset, *sizes)
    if reference.is_graph():  # which holds no function of ours
        return reference.forward(x, offset, *sizes)
    attended: Tensor = _Reference.apply(x, offset, *sizes)
    return attended
