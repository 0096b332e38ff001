"""The operator on every backend: a loop over every location, the golden values, and PyTorch's own checks."""

import itertools
import math
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from attention_inputs import LAYOUTS, draw, with_gradients
from golden_rule import case_id, cases, values
from torch.testing import assert_close

from sifa_zoo.ops import inter_frame_attention

OPERATOR = torch.ops.sifa.inter_frame_attention.default
BACKWARD = torch.ops.sifa.inter_frame_attention_backward.default


def loop_oracle(x, offset, kernel_size, dilation):
    """The definition, one location and one tap at a time."""
    n, _, t, h, w = x.shape
    pad = (dilation * (kernel_size - 1) + 1) // 2
    framed = torch.nn.functional.pad(x, (1, 1, 1, 1))  # by zeros, so that every corner is there
    out = torch.zeros_like(x)
    for b, frame, row, column in itertools.product(range(n), range(t - 1), range(h), range(w)):
        for k in range(kernel_size**2):
            dy, dx = offset[b, 2 * k : 2 * k + 2, frame + 1, row, column].tolist()
            y = row - pad + k // kernel_size * dilation + dy
            x_ = column - pad + k % kernel_size * dilation + dx
            if not (-1 < y < h and -1 < x_ < w):
                continue
            top, left = math.floor(y), math.floor(x_)
            down, right = y - top, x_ - left
            weights = x.new_tensor([[1 - down], [down]]) * x.new_tensor([1 - right, right])
            corners = framed[b, :, frame + 1, top + 1 : top + 3, left + 1 : left + 3]
            sample = (corners * weights).sum((1, 2))
            out[b, :, frame, row, column] += (x[b, :, frame, row, column] * sample).mean() * sample
    return out


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
def test_equals_the_loop(backend, device, shape, kernel_size, dilation):
    x, offset = draw(shape, kernel_size)
    attend = partial(inter_frame_attention, kernel_size=kernel_size, dilation=dilation, backend=backend)
    assert_close(attend(x.to(device), offset.to(device)).cpu(), loop_oracle(x, offset, kernel_size, dilation))


@pytest.mark.parametrize("case", cases("ops"), ids=case_id)
def test_equals_the_golden_values(backend, device, case):
    golden = {k.split(".")[1]: v.to(device) for k, v in values("ops").items() if k.split(".")[0] == case["case"]}
    x, offset = golden["x"].requires_grad_(), golden["offset"].requires_grad_()
    options = {"kernel_size": case["kernel_size"], "dilation": case["dilation"], "backend": backend}
    out = inter_frame_attention(x, offset, **options)
    assert_close(out, golden["out"], atol=1e-5, rtol=0)
    gradients = torch.autograd.grad(out, (x, offset), golden["grad_out"])
    for gradient, expected in zip(gradients, (golden["grad_x"], golden["grad_offset"]), strict=True):
        assert_close(gradient, expected, atol=1e-4 * max(expected.abs().max().item(), 1e-3), rtol=0)


# Every value that a kernel treats differently, each with several of the others.
MATRIX = [
    # shape, K, dilation, offsets, layout
    ((1, 64, 8, 7, 7), 3, 1, 0.5, "channels_last_3d"),
    ((2, 96, 3, 5, 4), 3, 1, 0.0, "contiguous"),
    ((1, 512, 2, 7, 7), 3, 1, 1.0, "channels_last_3d"),
    ((33, 16, 2, 5, 4), 3, 2, 2.0, "sliced"),
    ((0, 16, 3, 5, 4), 3, 1, 1.0, "contiguous"),
    ((2, 7, 3, 5, 4), 5, 1, 1.0, "permuted"),
    ((1, 3, 8, 1, 1), 3, 1, 0.3, "channels_last_3d"),
    ((2, 1, 2, 7, 7), 1, 1, 1.0, "expanded"),
    ((1, 1, 2, 5, 4), 5, 2, 1.0, "contiguous"),
    ((1, 16, 1, 7, 7), 3, 1, 1.0, "channels_last_3d"),
    ((1, 24, 2, 56, 56), 3, 1, 0.5, "channels_last_3d"),
    ((1, 72, 2, 9, 13), 3, 1, 30.0, "channels_last_3d"),
    ((1, 130, 2, 13, 18), 2, 1, 1.0, "expanded"),
    ((1, 200, 3, 6, 5), 3, 3, "integer", "channels_last_3d"),
    ((1, 40, 2, 6, 5), 3, 1, "border", "channels_last_3d"),
    ((1, 40, 2, 6, 5), 3, 1, "far", "channels_last_3d"),
    ((1, 1024, 2, 4, 3), 3, 1, 1.0, "channels_last_3d"),
]


def matrix_inputs(shape, kernel_size, scale, layout):
    x, offset = draw(shape, kernel_size, scale if isinstance(scale, float) else 3.0)
    if scale == "integer":
        offset = offset.round()
    choices = {
        # the last rows and columns that count, and the first that do not
        "border": [-1.0, shape[3], shape[4], -1 + 1e-6, shape[3] - 1e-6],
        "far": [float("nan"), float("inf"), -1e30, 3e9, 0.25],
    }
    if scale in choices:
        offset = torch.from_numpy(np.resize(choices[scale], offset.shape))
    return LAYOUTS[layout](x), LAYOUTS["channels_last_3d"](offset)


@pytest.mark.parametrize("backend", ["cpu", "cuda"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("shape", "kernel_size", "dilation", "scale", "layout"), MATRIX)
def test_native_equals_plain_pytorch(backend, device, dtype, shape, kernel_size, dilation, scale, layout):
    """In low precision: no worse than twice the error of plain PyTorch in that precision."""
    options = {"kernel_size": kernel_size, "dilation": dilation}
    x, offset = matrix_inputs(shape, kernel_size, scale, layout)
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    low = [x.to(dtype), offset.to(dtype if dtype == torch.float64 else torch.float32), grad.to(dtype)]
    exact = with_gradients(*(tensor.double() for tensor in low), backend="torch", **options)
    plain = with_gradients(*low, backend="torch", **options)
    native = with_gradients(*(tensor.to(device) for tensor in low), backend=backend, **options)
    for ours, theirs, expected in zip(native, plain, exact, strict=True):
        allowed = 2 * (theirs - expected).abs().max().item() if expected.numel() else 0.0
        atol = allowed + 8 * torch.finfo(dtype).eps * max(1.0, expected.abs().max().item() if expected.numel() else 0.0)
        assert_close(ours, expected, atol=atol, rtol=0)


@pytest.mark.parametrize("instruction_set", ["baseline", "avx2", "avx512"])
def test_every_instruction_set(instruction_set):
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    if instruction_set != "baseline" and instruction_set.replace("512", "512vl") not in flags:
        pytest.skip(f"this CPU has no {instruction_set}")
    capability = "default" if instruction_set == "baseline" else instruction_set
    script = (
        "import sys, pytest\n"
        "from sifa_zoo.ops import native\n"
        "native.load('cpu', may_build=True)\n"
        f"assert native.report()['CPU kernels use'] == {instruction_set!r}, native.report()\n"
        "tests = '(test_native_equals_plain_pytorch or test_equals_the_golden_values) and cpu'\n"
        f"sys.exit(pytest.main([{__file__!r}, '-p', 'no:xdist', '-k', tests]))\n"
    )
    options = {"cwd": Path(__file__).parents[2], "env": {**os.environ, "ATEN_CPU_CAPABILITY": capability}}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


@pytest.mark.parametrize(("kernel_size", "dilation"), [(3, 1), (1, 1), (3, 2)])
def test_gradcheck(backend, device, kernel_size, dilation):
    x, offset = draw((1, 2, 3, 4, 3), kernel_size, device=device)
    attend = partial(inter_frame_attention, kernel_size=kernel_size, dilation=dilation, backend=backend)
    tolerance = 1e-10 if device.type == "cuda" else 0.0  # atomic additions on a GPU come in any order
    assert torch.autograd.gradcheck(attend, (x.requires_grad_(), offset.requires_grad_()), nondet_tol=tolerance)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last_3d"])
def test_opcheck(backend, device, layout):
    x, offset = draw((2, 2, 3, 4, 3), dtype=torch.float32, device=device)
    x = LAYOUTS[layout](x)
    for residual in (False, True):
        inputs = x.clone().requires_grad_(), offset[:, :, 1:].clone().requires_grad_(), 3, 1, residual
        torch.library.opcheck(OPERATOR, inputs)
        torch.library.opcheck(BACKWARD, (torch.ones_like(x), x, offset[:, :, 1:], 3, 1, residual, True))


def test_the_same_bits_whatever_the_number_of_threads(request):
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    x, offset = draw((2, 96, 4, 9, 11), dtype=torch.float32)
    grad = torch.randn(x.shape)
    results = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        results.append(with_gradients(x, offset, grad))
    assert_close(results, 3 * [results[0]], atol=0, rtol=0)


def test_a_deterministic_backward_on_request(backend, device, request):
    request.addfinalizer(partial(torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled()))
    x, offset = draw((2, 40, 3, 12, 9), dtype=torch.float32, device=device)
    grad = torch.randn(x.shape)
    torch.use_deterministic_algorithms(True)
    results = [with_gradients(x, offset, grad, backend=backend) for _ in range(5)]
    assert_close(results, 5 * [results[0]], atol=0, rtol=0)
    assert_close(results[0], with_gradients(x.cpu(), offset.cpu(), grad, backend="torch"), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backend_name", ["auto", "torch"])
def test_compiles_into_one_graph(backend_name):
    x, offset = draw((1, 4, 3, 5, 6), dtype=torch.float32)
    attend, graphs = partial(inter_frame_attention, backend=backend_name), []
    compiled = torch.compile(attend, fullgraph=True, backend=lambda module, _: graphs.append(module.graph) or module)
    assert_close(compiled(x, offset), attend(x, offset))
    calls = ["inter_frame_attention" in str(node.target) for node in graphs[0].nodes]
    assert sum(calls) == (backend_name == "auto")


def test_compiles_for_training_under_autocast():
    x, offset = draw((2, 8, 3, 5, 6), dtype=torch.float32)
    results = []
    for attend in (inter_frame_attention, torch.compile(inter_frame_attention, fullgraph=True, backend="aot_eager")):
        inputs = x.clone().requires_grad_(), offset.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = attend(*inputs)
        assert out.dtype == torch.bfloat16
        results.append((out, *torch.autograd.grad(out.float().square().sum(), inputs)))
    assert_close(*results)


@pytest.mark.parametrize(("backend_name", "holds_operator"), [("auto", True), ("torch", False)])
def test_exports_with_any_batch_and_size(backend_name, holds_operator):
    class Attend(torch.nn.Module):
        def forward(self, x, offset):
            return inter_frame_attention(x, offset, backend=backend_name)

    sizes = {0: torch.export.Dim("n"), 3: torch.export.Dim("h"), 4: torch.export.Dim("w")}
    program = torch.export.export(Attend(), draw((2, 4, 3, 5, 6)), dynamic_shapes=(sizes, sizes))
    assert any("sifa" in str(node.target) for node in program.graph.nodes) is holds_operator
    other = draw((3, 4, 3, 7, 4))
    assert_close(program.module()(*other), inter_frame_attention(*other))


@pytest.mark.parametrize("backend_name", ["auto", "torch"])
def test_autocast_casts_features_and_keeps_offsets(backend_name):
    x, offset = draw((1, 16, 3, 6, 5), dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = inter_frame_attention(x, offset, backend=backend_name)
        assert inter_frame_attention(x.double(), offset.double(), backend=backend_name).dtype == torch.float64
    assert torch.equal(out, inter_frame_attention(x.bfloat16(), offset, backend=backend_name))
    rounded = inter_frame_attention(x.bfloat16(), offset.bfloat16(), backend=backend_name)
    assert not torch.equal(out, rounded)
    assert torch.equal(rounded, inter_frame_attention(x.bfloat16(), offset.bfloat16().float(), backend=backend_name))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_in_and_the_same_out(backend, device, layout):
    x, offset = draw((2, 4, 3, 5, 6), device=device)
    view = LAYOUTS[layout](x)
    out = inter_frame_attention(view, offset, backend=backend)
    assert_close(out.cpu(), loop_oracle(view.cpu(), offset.cpu(), 3, 1))
    assert out.stride() == torch.empty_like(view).stride()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30, -1e30])
def test_samples_that_are_nowhere_count_as_zero(backend, device, value):
    x, offset = draw((1, 4, 2, 5, 6), device=device)
    offset = torch.full_like(offset, value).requires_grad_()
    out = inter_frame_attention(x.requires_grad_(), offset, backend=backend)
    out.sum().backward()
    assert not any(tensor.any() for tensor in (out, x.grad, offset.grad))


def test_only_the_needed_gradient(backend, device):
    x, offset = draw((1, 4, 2, 5, 6), device=device)
    inter_frame_attention(x, offset.requires_grad_(), backend=backend).sum().backward()
    assert offset.grad.abs().sum() > 0
    assert not offset.grad[:, :, 0].any()  # the offsets of frame 0 are never used
    x.requires_grad_()
    inter_frame_attention(x, offset.detach(), backend=backend).sum().backward()
    assert x.grad.abs().sum() > 0


def test_differentiating_twice_is_an_error(backend, device):
    x, offset = draw((1, 4, 2, 5, 6), device=device)
    out = inter_frame_attention(x.requires_grad_(), offset.requires_grad_(), backend=backend)
    (gradient,) = torch.autograd.grad(out, x, torch.ones_like(out, requires_grad=True), create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        gradient.sum().backward()


@pytest.mark.parametrize("backend", ["cuda"], indirect=True)
def test_another_stream_and_a_graph_on_a_gpu(backend, device):
    x, offset = draw((2, 64, 4, 14, 14), dtype=torch.float32, device=device)
    expected = inter_frame_attention(x, offset)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        other = inter_frame_attention(x, offset)
    stream.synchronize()
    assert torch.equal(other, expected)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = inter_frame_attention(x, offset)
    captured.zero_()
    graph.replay()
    assert torch.equal(captured, expected)


@pytest.mark.parametrize("backend", ["cuda"], indirect=True)
def test_a_second_gpu(backend):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    x, offset = draw((1, 8, 3, 6, 5), dtype=torch.float32)
    out = inter_frame_attention(x.to("cuda:1"), offset.to("cuda:1"))
    assert_close(out.cpu(), inter_frame_attention(x, offset))
