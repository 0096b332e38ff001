"""The operator three ways: a loop over every location, the golden values, and PyTorch's own checks."""

import itertools
import math

import pytest
import torch
from golden_rule import case_id, cases, values

from sifa_zoo import ops
from sifa_zoo.ops import inter_frame_attention


def loop_oracle(x, offset, kernel_size, dilation):
    """The definition, one location and one tap at a time."""
    n, c, t, h, w = x.shape
    pad = (dilation * (kernel_size - 1) + 1) // 2
    out = torch.zeros_like(x)

    def pixel(b, frame, row, column):
        inside = 0 <= row < h and 0 <= column < w
        return x[b, :, frame, row, column] if inside else torch.zeros(c, dtype=x.dtype)

    for b, frame, row, column in itertools.product(range(n), range(t - 1), range(h), range(w)):
        for k in range(kernel_size**2):
            dy, dx = offset[b, 2 * k : 2 * k + 2, frame + 1, row, column].tolist()
            y = row - pad + k // kernel_size * dilation + dy
            x_ = column - pad + k % kernel_size * dilation + dx
            if not (-1 < y < h and -1 < x_ < w):
                continue
            top, left = math.floor(y), math.floor(x_)
            down, right = y - top, x_ - left
            sample = (1 - down) * (
                (1 - right) * pixel(b, frame + 1, top, left) + right * pixel(b, frame + 1, top, left + 1)
            )
            sample += down * (
                (1 - right) * pixel(b, frame + 1, top + 1, left) + right * pixel(b, frame + 1, top + 1, left + 1)
            )
            out[b, :, frame, row, column] += (x[b, :, frame, row, column] * sample).mean() * sample
    return out


def draw(shape, kernel_size=3, scale=1.5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(sum(shape) + kernel_size)
    x = torch.randn(shape, generator=generator, dtype=dtype)
    n, _, t, h, w = shape
    return x, scale * torch.randn(n, 2 * kernel_size**2, t, h, w, generator=generator, dtype=dtype)


@pytest.mark.parametrize(
    ("shape", "kernel_size", "dilation"),
    [
        ((2, 3, 3, 5, 4), 3, 1),
        ((1, 1, 2, 1, 1), 3, 1),
        ((1, 7, 2, 4, 6), 5, 1),
        ((1, 2, 3, 6, 5), 3, 2),
        ((1, 2, 2, 3, 7), 1, 1),
        ((1, 2, 2, 4, 5), 2, 1),
        ((1, 4, 1, 3, 3), 3, 1),
    ],
)
def test_equals_the_loop(shape, kernel_size, dilation):
    x, offset = draw(shape, kernel_size)
    out = inter_frame_attention(x, offset, kernel_size=kernel_size, dilation=dilation)
    torch.testing.assert_close(out, loop_oracle(x, offset, kernel_size, dilation))


@pytest.mark.parametrize("case", cases("ops"), ids=case_id)
def test_equals_the_golden_values(case):
    golden = {k.split(".")[1]: v for k, v in values("ops").items() if k.split(".")[0] == case["case"]}
    x, offset = golden["x"].requires_grad_(), golden["offset"].requires_grad_()
    out = inter_frame_attention(x, offset, kernel_size=case["kernel_size"], dilation=case["dilation"])
    torch.testing.assert_close(out, golden["out"], atol=1e-5, rtol=0)
    gradients = torch.autograd.grad(out, (x, offset), golden["grad_out"])
    for gradient, expected in zip(gradients, (golden["grad_x"], golden["grad_offset"]), strict=True):
        torch.testing.assert_close(gradient, expected, atol=1e-4 * max(expected.abs().max().item(), 1e-3), rtol=0)


@pytest.mark.parametrize(("kernel_size", "dilation"), [(3, 1), (1, 1), (3, 2)])
def test_gradcheck(kernel_size, dilation):
    x, offset = draw((1, 2, 3, 4, 3), kernel_size)
    attend = lambda x, offset: inter_frame_attention(x, offset, kernel_size=kernel_size, dilation=dilation)  # noqa: E731
    assert torch.autograd.gradcheck(attend, (x.requires_grad_(), offset.requires_grad_()))


def test_opcheck():
    x, offset = draw((1, 2, 3, 4, 3), dtype=torch.float32)
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        arguments = (x.contiguous(memory_format=layout).requires_grad_(), offset.clone().requires_grad_(), 3, 1)
        torch.library.opcheck(torch.ops.sifa.inter_frame_attention.default, arguments)


def test_compiles_to_one_operator():
    x, offset = draw((1, 4, 3, 5, 6), dtype=torch.float32)
    graphs = []

    def keep(module, _):
        graphs.append(module.graph)
        return module

    compiled = torch.compile(lambda x, offset: 2 * inter_frame_attention(x, offset), fullgraph=True, backend=keep)
    torch.testing.assert_close(compiled(x, offset), 2 * inter_frame_attention(x, offset))
    calls = [node for node in graphs[0].nodes if "inter_frame_attention" in str(node.target)]
    assert len(calls) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_loses_only_its_rounding(dtype):
    x, offset = draw((1, 16, 3, 6, 5), dtype=torch.float32)
    exact = inter_frame_attention(x.to(dtype).float(), offset)
    out = inter_frame_attention(x.to(dtype), offset)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), exact, atol=2 * torch.finfo(dtype).eps * exact.abs().max().item(), rtol=0)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last_3d", "permuted", "sliced", "expanded"])
def test_any_layout_in_and_the_same_out(layout):
    x, offset = draw((2, 4, 3, 5, 6))
    view = {
        "contiguous": x,
        "channels_last_3d": x.to(memory_format=torch.channels_last_3d),
        "permuted": x.permute(0, 2, 1, 4, 3).contiguous().permute(0, 2, 1, 4, 3),
        "sliced": torch.cat([x, x], 1)[:, :4],
        "expanded": x[:1].expand(2, -1, -1, -1, -1),
    }[layout]
    out = inter_frame_attention(view, offset)
    torch.testing.assert_close(out, loop_oracle(view, offset, 3, 1))
    assert out.stride() == torch.empty_like(view).stride()


def test_empty_batch():
    x, offset = draw((0, 4, 3, 5, 6))
    out = inter_frame_attention(x.requires_grad_(), offset.requires_grad_())
    out.sum().backward()
    assert out.shape == x.grad.shape == (0, 4, 3, 5, 6)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30, -1e30])
def test_samples_that_are_nowhere_count_as_zero(value):
    x, offset = draw((1, 4, 2, 5, 6))
    offset = torch.full_like(offset, value).requires_grad_()
    out = inter_frame_attention(x.requires_grad_(), offset)
    out.sum().backward()
    assert not out.any()
    assert not x.grad.any()
    assert not offset.grad.any()


def test_only_the_needed_gradient():
    x, offset = draw((1, 4, 2, 5, 6))
    inter_frame_attention(x, offset.requires_grad_()).sum().backward()
    assert offset.grad.abs().sum() > 0
    assert not offset.grad[:, :, 0].any()  # the offsets of frame 0 are never used


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"x": torch.zeros(4, 2, 5, 6)}, ValueError, "x must be"),
        ({"offset": torch.zeros(1, 16, 2, 5, 6)}, ValueError, r"offset must be .*\(1, 18, 2, 5, 6\)"),
        ({"x": torch.zeros(1, 4, 2, 5, 6, dtype=torch.int64)}, TypeError, "floating point"),
        ({"offset": torch.zeros(1, 18, 2, 5, 6, device="meta")}, ValueError, "one device"),
        ({"kernel_size": 0}, ValueError, "kernel_size"),
        ({"backend": "tpu"}, ValueError, "backend must be"),
        ({"backend": "cuda"}, RuntimeError, "no native CUDA kernel"),
    ],
)
def test_errors(change, error, match):
    arguments = {"x": torch.zeros(1, 4, 2, 5, 6), "offset": torch.zeros(1, 18, 2, 5, 6), **change}
    x, offset = arguments.pop("x"), arguments.pop("offset")
    with pytest.raises(error, match=match):
        inter_frame_attention(x, offset, **arguments)


def test_backends_say_why_not():
    assert ops.backends()["torch"] is True
    assert all(reason is True or "backend" in reason for reason in ops.backends().values())
