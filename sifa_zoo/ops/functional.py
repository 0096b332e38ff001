"""Stand-alone inter-frame attention as one PyTorch operator, `sifa::inter_frame_attention`.

Source: SIFA, CVPR 2022 (https://arxiv.org/abs/2206.06931), section 3, and the authors' code. Here are the operator's
schema, its checks, and its fake, autograd and autocast rules, so that `torch.compile` and `torch.export` see one node.
`reference.py` holds the arithmetic in PyTorch, which runs wherever no native kernel is loaded; `native.py` loads those.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sifa_zoo.ops import native, reference


def inter_frame_attention(
    x: Tensor, offset: Tensor, *, kernel_size: int = 3, dilation: int = 1, backend: str = "auto"
) -> Tensor:
    """Attend from each location of a frame to a deformable neighbourhood in the next frame.

    The query is frame t; keys and values are frame t+1, sampled bilinearly at a `kernel_size` x `kernel_size` grid that
    is moved by the offsets stored at t+1. The weight of a tap is the dot product of query and key divided by C, without
    a softmax, and the result is the weighted sum of the values. A sample outside the frame counts as zero.

    Sums are taken in float32 (float64 for float64 input), whatever dtype comes in. Under autocast `x` is cast and the
    offsets are kept in float32. The native kernels read channels_last_3d memory without copying it, never store the
    samples, and are deterministic on a CPU; on a GPU they are after `torch.use_deterministic_algorithms(True)`.

    Args:
        x: Features `(N, C, T, H, W)`, any floating dtype and memory format.
        offset: Displacements in pixels `(N, 2*kernel_size**2, T, H, W)`; channel `2k` is the row and `2k + 1` the
            column of tap k, taps counted row by row. Those of frame 0 are never used.
        kernel_size: K, taps per row and column.
        dilation: Distance between neighbouring taps, in pixels.
        backend: "auto" takes the native kernel of the tensors' device, or plain PyTorch with one warning where there is
            none. "cpu" and "cuda" require it. "torch" is plain PyTorch, which leaves only PyTorch's own operators in a
            graph, as ONNX needs.

    Returns:
        A tensor like `x`, in its memory format. The last frame is zero: no frame follows it.

    Raises:
        ValueError: If shapes do not fit together, or the backend is unknown or of another device.
        TypeError: If `x` or `offset` is not of a floating dtype.
        RuntimeError: If `backend` names one that cannot run here, or on differentiating twice.

    Example:
        >>> x = torch.randn(1, 8, 4, 7, 9)
        >>> inter_frame_attention(x, torch.zeros(1, 18, 4, 7, 9)).shape
        torch.Size([1, 8, 4, 7, 9])
    """
    _check(x, offset, kernel_size, dilation)
    check_backend(backend)
    if backend == "torch":
        return _decomposed(x, offset, kernel_size, dilation)
    if backend != "auto" and x.device.type != backend:
        raise ValueError(f"{backend = } needs tensors on that device, got {x.device}")
    if backend != "auto" and not torch.compiler.is_compiling() and (reason := native.load(backend, may_build=True)):
        raise RuntimeError(f"{backend = } cannot run: {reason}")
    return torch.ops.sifa.inter_frame_attention(x, offset, kernel_size, dilation)


def check_backend(backend: str) -> None:
    """Raise ValueError unless there is a backend of this name."""
    if backend not in ("auto", "torch", *native.DEVICES):
        raise ValueError(f"backend must be 'auto', 'torch', 'cpu' or 'cuda', got {backend = }")


torch.library.define(
    "sifa::inter_frame_attention",
    "(Tensor x, Tensor offset, int kernel_size, int dilation) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
torch.library.define(
    "sifa::inter_frame_attention_backward",
    "(Tensor grad, Tensor x, Tensor offset, int kernel_size, int dilation, bool deterministic) -> (Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


@torch.library.impl("sifa::inter_frame_attention", "CompositeExplicitAutograd")
def _forward_anywhere(x: Tensor, offset: Tensor, kernel_size: int, dilation: int) -> Tensor:
    if native.load_for(x.device.type):  # from now on the dispatcher calls the native kernel itself
        return torch.ops.sifa.inter_frame_attention(x, offset, kernel_size, dilation)
    return reference.forward(x, offset, kernel_size, dilation)


@torch.library.impl("sifa::inter_frame_attention_backward", "CompositeExplicitAutograd")
def _backward_anywhere(
    grad: Tensor, x: Tensor, offset: Tensor, kernel_size: int, dilation: int, deterministic: bool
) -> tuple[Tensor, Tensor]:
    if native.load_for(x.device.type):
        return torch.ops.sifa.inter_frame_attention_backward(grad, x, offset, kernel_size, dilation, deterministic)
    return reference.backward(grad, x, offset, kernel_size, dilation)


@torch.library.register_fake("sifa::inter_frame_attention")
def _(x: Tensor, offset: Tensor, kernel_size: int, dilation: int) -> Tensor:
    return torch.empty_like(x)


@torch.library.register_fake("sifa::inter_frame_attention_backward")
def _(
    grad: Tensor, x: Tensor, offset: Tensor, kernel_size: int, dilation: int, deterministic: bool
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(offset)


def _save_inputs(ctx, inputs, output) -> None:
    x, offset, ctx.kernel_size, ctx.dilation = inputs
    ctx.save_for_backward(x, offset)  # the samples are taken again in backward: K*K of them would not fit


def _backward(ctx, grad: Tensor):
    x, offset = ctx.saved_tensors
    grads = torch.ops.sifa.inter_frame_attention_backward(
        grad, x, offset, ctx.kernel_size, ctx.dilation, torch.are_deterministic_algorithms_enabled()
    )
    return *grads, None, None


def _double_backward(ctx, *grads: Tensor):
    raise RuntimeError("inter_frame_attention cannot be differentiated twice")


torch.library.register_autograd("sifa::inter_frame_attention", _backward, setup_context=_save_inputs)
torch.library.register_autograd("sifa::inter_frame_attention_backward", _double_backward)


def _autocast_kernel(device_type: str):
    key = getattr(torch._C.DispatchKey, f"Autocast{device_type.upper()}")

    def kernel(x: Tensor, offset: Tensor, kernel_size: int, dilation: int) -> Tensor:
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(key)):
            x, offset = _cast(x, offset, torch.get_autocast_dtype(device_type))
            return torch.ops.sifa.inter_frame_attention(x, offset, kernel_size, dilation)

    return kernel


def _cast(x: Tensor, offset: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Positions need more digits than features: bfloat16 has no quarter pixels beyond 64."""
    if torch.float64 in (x.dtype, offset.dtype):  # as PyTorch's own autocast, which leaves float64 alone
        return x, offset
    return x.to(dtype), offset.float()


for _device_type in ("cpu", "cuda"):
    torch.library.impl("sifa::inter_frame_attention", f"Autocast{_device_type.upper()}")(_autocast_kernel(_device_type))


class _Reference(torch.autograd.Function):
    """The operator in PyTorch's own operators, with its own backward: autograd's would keep every sample."""

    @staticmethod
    def forward(ctx, x: Tensor, offset: Tensor, kernel_size: int, dilation: int) -> Tensor:
        _save_inputs(ctx, (x, offset, kernel_size, dilation), None)
        return reference.forward(x, offset, kernel_size, dilation)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        x, offset = ctx.saved_tensors
        return *reference.backward(grad, x, offset, ctx.kernel_size, ctx.dilation), None, None


def _decomposed(x: Tensor, offset: Tensor, kernel_size: int, dilation: int) -> Tensor:
    device_type = x.device.type
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        x, offset = _cast(x, offset, torch.get_autocast_dtype(device_type))
        with torch.autocast(device_type, enabled=False):
            return _decomposed(x, offset, kernel_size, dilation)
    if torch.compiler.is_exporting():  # a graph to run, not to train
        return reference.forward(x, offset, kernel_size, dilation)
    return _Reference.apply(x, offset, kernel_size, dilation)


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
