"""What inter-frame attention takes: offsets of any layout, a residual, and what it refuses."""

import pytest
import torch
from attention_inputs import LAYOUTS, draw, with_gradients
from torch.autograd import forward_ad
from torch.testing import assert_close

from sifa_zoo.ops import inter_frame_attention, motion_saliency

OPERATOR = torch.ops.sifa.inter_frame_attention.default
BACKWARD = torch.ops.sifa.inter_frame_attention_backward.default

OFFSETS = {
    "with frame 0": lambda offset: offset,
    "without frame 0": lambda offset: offset[:, :, 1:].contiguous(),
    "sliced": lambda offset: offset[:, :, 1:],
    "channels last": lambda offset: LAYOUTS["channels_last_3d"](offset[:, :, 1:]),
    "of wider rows": lambda offset: LAYOUTS["channels_last_3d"](torch.cat([offset, offset], 1))[:, :18, 1:],
    "expanded": lambda offset: offset[:1, :, 1:].expand(offset[:, :, 1:].shape),
}


@pytest.mark.parametrize("layout", OFFSETS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_offsets_of_any_layout(backend, device, layout, dtype):
    x, offset = draw((2, 4, 3, 5, 6), device=device)
    offset = torch.cat([offset[:1], offset[:1]]) if layout == "expanded" else offset
    x, offset = x.to(dtype), offset.to(dtype)
    expected = with_gradients(x, offset, torch.ones_like(x), backend="torch")
    given = OFFSETS[layout](offset).detach().requires_grad_()
    out = inter_frame_attention(x, given, backend=backend)
    (gradient,) = torch.autograd.grad(out, given, torch.ones_like(x))
    assert gradient.dtype == dtype
    tolerances = {"atol": 64 * torch.finfo(dtype).eps, "rtol": 4 * torch.finfo(dtype).eps}
    assert_close(out.cpu().double(), expected[0], **tolerances)
    assert_close(gradient.cpu().double()[:, :, -2:], expected[2][:, :, 1:], **tolerances)


@pytest.mark.parametrize("shape", [(2, 4, 3, 5, 6), (1, 3, 1, 4, 4), (0, 4, 3, 5, 6)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_with_a_residual(backend, device, shape, dtype):
    x, offset = draw(shape, dtype=dtype, device=device)
    grad = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    plain, summed = (with_gradients(x, offset, grad, backend=backend, residual=residual) for residual in (False, True))
    tolerance = 2 * torch.finfo(dtype).eps * max([1.0, *(t.abs().max().item() for t in plain if t.numel())])
    assert_close(summed[0], plain[0] + x.cpu().double(), atol=tolerance, rtol=0)
    assert_close(summed[1], plain[1] + grad.double(), atol=tolerance, rtol=0)
    assert_close(summed[2], plain[2], atol=0, rtol=0)


FITTING = {"x": torch.zeros(1, 4, 2, 5, 6), "offset": torch.zeros(1, 18, 2, 5, 6)}


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"x": torch.zeros(4, 2, 5, 6)}, ValueError, "x must be"),
        ({"offset": torch.zeros(1, 16, 2, 5, 6)}, ValueError, r"offset must be .*\(1, 18, 1, 5, 6\)"),
        ({"offset": torch.zeros(1, 18, 3, 5, 6)}, ValueError, "T or T - 1"),
        ({"x": torch.zeros(1, 4, 2, 5, 6, dtype=torch.int64)}, TypeError, "floating point"),
        ({"offset": torch.zeros(1, 18, 2, 5, 6, device="meta")}, ValueError, "one device"),
        ({"kernel_size": 0}, ValueError, "kernel_size"),
        ({"backend": "tpu"}, ValueError, "backend must be"),
        ({"backend": "cuda"}, ValueError, "needs tensors on that device"),
    ],
)
def test_errors(change, error, match):
    with pytest.raises(error, match=match):
        inter_frame_attention(**FITTING | change)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"offset": torch.zeros(1, 16, 1, 5, 6)}, ValueError, "offset must be"),
        ({"offset": torch.zeros(1, 18, 2, 5, 6)}, ValueError, "offset must be"),
        ({"kernel_size": 0}, ValueError, "kernel_size"),
        ({"x": torch.zeros(1, 4, 2, 5, 6, dtype=torch.int32)}, TypeError, "floating point"),
        ({"x": torch.zeros(4, 2, 5, 6)}, ValueError, "x must be"),
        ({"grad": torch.zeros(1, 4, 2, 5, 7)}, ValueError, "grad must be like x"),
        ({"grad": torch.zeros(1, 4, 2, 5, 6).double()}, ValueError, "grad must be like x"),
    ],
)
def test_the_operators_check_for_themselves(change, error, match):
    """Whoever calls them directly, also in inference mode: the kernels trust what they are given."""
    x, offset = torch.zeros(1, 4, 2, 5, 6), torch.zeros(1, 18, 1, 5, 6)
    arguments = {"x": x, "offset": offset, "kernel_size": 3, "dilation": 1, "residual": False} | change
    with torch.inference_mode(), pytest.raises(error, match=match):
        BACKWARD(**arguments, ordered=False) if "grad" in change else OPERATOR(**arguments)


@pytest.mark.parametrize("function", [lambda x: inter_frame_attention(x, torch.zeros(1, 18, 3, 5, 6)), motion_saliency])
def test_forward_mode_is_refused_and_never_zero(function):
    x = torch.randn(1, 4, 3, 5, 6)
    with pytest.raises(RuntimeError, match="forward mode"):
        torch.func.jvp(function, (x,), (x,))
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="forward"):
        function(forward_ad.make_dual(x, x))
    assert function(x).isfinite().all()
