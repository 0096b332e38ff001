"""What only a GPU can get wrong: order of additions, streams, graphs, devices, sizes beyond a launch's limits."""

from functools import partial

import pytest
import torch
from attention_inputs import LAYOUTS, draw, with_gradients
from torch.testing import assert_close

from sifa_zoo.ops import inter_frame_attention

attend = partial(inter_frame_attention, backend="cuda")
SHAPE = (2, 40, 4, 13, 11)


def inputs(device, shape=SHAPE, kernel_size=3, scale=1.5, dtype=torch.float32):
    """Features, offsets and a gradient; features as the models have them."""
    x, offset = draw(shape, kernel_size, scale, dtype, device)
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    return LAYOUTS["channels_last_3d"](x), offset, grad


def results(x, offset, grad, **options):
    x, offset = x.detach().requires_grad_(), offset.detach().requires_grad_()
    out = attend(x, offset, **options)
    return [out.detach(), *torch.autograd.grad(out, (x, offset), grad)]


def assert_equals_the_cpu(found, x, offset, grad, **options):
    expected = with_gradients(x.cpu(), offset.cpu(), grad.cpu(), **options)
    for ours, theirs in zip(found, expected, strict=True):
        atol = 2e-5 * max(1.0, theirs.abs().max().item() if theirs.numel() else 0.0)
        assert_close(ours.cpu().double(), theirs, atol=atol, rtol=0)


@pytest.mark.parametrize("scale", [0.5, 4.0])  # few taps, and most, leave the tile that needs no atomics
@pytest.mark.parametrize("residual", [False, True])
def test_a_deterministic_backward_has_the_same_bits(gpu, request, scale, residual):
    request.addfinalizer(partial(torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled()))
    torch.use_deterministic_algorithms(True)
    given = inputs(gpu, scale=scale)
    found = [results(*given, residual=residual) for _ in range(20)]
    assert_close(found, 20 * [found[0]], atol=0, rtol=0)
    assert_equals_the_cpu(found[0], *given, residual=residual)


def test_a_side_stream(gpu):
    """What is queued on a stream is waited for there, and backward runs on the stream of forward."""
    x, offset, grad = inputs(gpu, (4, 64, 8, 28, 28))
    expected = results(x, offset, grad)
    side, ready = torch.cuda.Stream(), torch.cuda.Event()
    late = torch.zeros_like(x).requires_grad_()
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)  # kernels on another stream would read `late` before it is written
        with torch.no_grad():
            late.copy_(x)
        moved = offset.clone().requires_grad_()
        out = attend(late, moved)
        ready.record()
    torch.cuda.current_stream().wait_event(ready)
    assert_close(out.detach(), expected[0], atol=0, rtol=0)
    gradients = torch.autograd.grad(out, (late, moved), grad)
    assert_close(gradients, tuple(expected[1:]), atol=1e-4, rtol=1e-4)


def test_a_graph_of_forward_and_backward(gpu):
    """Captured once, and replayed on other values."""
    x, offset, grad = inputs(gpu)
    x, offset = x.requires_grad_(), offset.requires_grad_()

    def step():
        out = attend(x, offset)
        return [out, *torch.autograd.grad(out, (x, offset), grad)]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for scale in (0.5, 3.0):
        new = [tensor * scale for tensor in inputs(gpu)]
        with torch.no_grad():
            for tensor, value in zip((x, offset, grad), new, strict=True):
                tensor.copy_(value)
        graph.replay()
        assert_equals_the_cpu([tensor.detach() for tensor in captured], *new)


@pytest.mark.parametrize("current", [0, 1])
def test_a_second_gpu_whatever_is_current(gpu, current):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    given = inputs(torch.device("cuda:1"))
    with torch.cuda.device(current):
        found = results(*given)
        assert torch.cuda.current_device() == current
    assert all(tensor.device.index == 1 for tensor in found)
    assert_equals_the_cpu(found, *given)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("offset_dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_autocast(gpu, dtype, offset_dtype):
    x, offset, _ = inputs(gpu)
    x, offset = x.requires_grad_(), offset.to(offset_dtype).requires_grad_()
    with torch.autocast(gpu.type, dtype):
        out = attend(x, offset)
    assert out.dtype == dtype
    assert torch.equal(out, attend(x.to(dtype), offset.float()))
    out.float().square().sum().backward()
    assert x.grad.dtype == torch.float32
    assert offset.grad.dtype == offset_dtype
    assert x.grad.isfinite().all()
    assert offset.grad.isfinite().all()


@pytest.mark.parametrize(
    ("shape", "kernel_size"),
    [
        ((1, 4096, 2, 3, 5), 3),
        ((1, 8, 2, 1, 1), 3),
        ((2, 20, 3, 9, 8), 7),
        ((1, 4, 2, 3, 5000), 3),
        ((1, 4, 2, 5000, 3), 3),
        ((70_000, 2, 2, 1, 2), 3),  # more than 65,535 frames
        ((1, 2, 70_000, 1, 2), 1),
        ((0, 8, 3, 5, 4), 3),
        ((1, 8, 1, 5, 4), 3),
    ],
)
def test_sizes_near_the_limits(gpu, shape, kernel_size):
    given = inputs(gpu, shape, kernel_size)
    found = results(*given, kernel_size=kernel_size)
    assert_equals_the_cpu(found, *given, kernel_size=kernel_size)


def test_more_elements_than_32_bits_can_count(gpu):
    """The last corner of the last frame, against the same corner by itself."""
    channels, frames, side, corner = 512, 4, 1032, 12
    assert channels * frames * side * side > 2**31
    if torch.cuda.mem_get_info()[0] < 45 * 2**30:
        pytest.skip("needs 45 GiB of free memory on the GPU")
    generator = torch.Generator(gpu).manual_seed(0)
    stored = torch.empty(1, frames, side, side, channels, dtype=torch.bfloat16, device=gpu)
    x = stored.normal_(generator=generator).permute(0, 4, 1, 2, 3)  # (N, C, T, H, W)
    offset = torch.rand(1, 18, frames, side, side, generator=generator, device=gpu) - 0.5
    small_x, small_offset = (tensor[..., -corner:, -corner:].contiguous() for tensor in (x, offset))
    found = results(x, offset, x)
    expected = with_gradients(small_x.cpu(), small_offset.cpu(), small_x.cpu())
    inner = corner - 4  # two pixels for the taps of these, and two for those that reach them
    for ours, theirs in zip(found, expected, strict=True):
        ours = ours[..., -inner:, -inner:].cpu().double()
        theirs = theirs[..., -inner:, -inner:]
        assert_close(ours, theirs, atol=2e-2 * theirs.abs().max().item(), rtol=2e-2)
    torch.cuda.empty_cache()


def test_tensors_of_two_devices_are_refused(gpu):
    x, offset, _ = inputs(gpu)
    with pytest.raises((ValueError, RuntimeError), match="device"):
        inter_frame_attention(x, offset.cpu())
    with pytest.raises(ValueError, match="backend = 'cuda' needs tensors on that device, got cpu"):
        attend(x.cpu(), offset.cpu())
    with pytest.raises(ValueError, match="backend = 'cpu' needs tensors on that device, got cuda"):
        inter_frame_attention(x, offset, backend="cpu")


def test_a_refusal_leaves_the_device_usable(gpu):
    x, offset, grad = inputs(gpu)
    for wrong, error in ((offset[:, :9], ValueError), (offset.long(), TypeError)):
        with pytest.raises(error, match="offset must be"):
            attend(x, wrong)
    assert_equals_the_cpu(results(x, offset, grad), x, offset, grad)


def test_compiled(gpu):
    given = inputs(gpu)
    compiled = torch.compile(attend, fullgraph=True)
    x, offset = given[0].clone().requires_grad_(), given[1].clone().requires_grad_()
    out = compiled(x, offset)
    assert_equals_the_cpu([out.detach(), *torch.autograd.grad(out, (x, offset), given[2])], *given)


def test_plain_pytorch_on_a_gpu(gpu):
    x, offset, grad = inputs(gpu)
    x, offset = x.requires_grad_(), offset.requires_grad_()
    out = inter_frame_attention(x, offset, backend="torch")
    found = [out.detach(), *torch.autograd.grad(out, (x, offset), grad)]
    assert_equals_the_cpu(found, x.detach(), offset.detach(), grad)
