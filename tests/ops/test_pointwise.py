"""Motion saliency and the sum with context, on every backend, against their formulas."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from sifa_zoo.ops import add_context, motion_saliency

SALIENCY = torch.ops.sifa.motion_saliency.default
SALIENCY_BACKWARD = torch.ops.sifa.motion_saliency_backward.default
CONTEXT = torch.ops.sifa.add_context.default
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(2, 3, 4, 5, 6), (1, 16, 2, 1, 1), (3, 72, 3, 4, 2), (2, 4, 1, 3, 3), (0, 8, 3, 2, 2), (1, 1, 5, 7, 9)]
LAYOUTS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.to(memory_format=torch.channels_last_3d if x.ndim == 5 else torch.channels_last),
    "sliced": lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
}


def draw(*shape, dtype=torch.float64, device="cpu", scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(device, dtype)


def saliency_formula(clip):
    frame, previous = clip[:, :, 1:], clip[:, :, :-1]
    return frame * (1 + torch.sigmoid(frame - previous))


def context_formula(frames, context, shortcut):
    num_steps = frames.shape[0] // max(1, context.shape[0])
    return torch.relu(frames + context.repeat_interleave(num_steps, 0)[:, :, None, None] + shortcut)


def with_gradients(function, inputs, grad):
    """The result and all gradients, in float64 on the CPU."""
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    out = function(*inputs)
    return [tensor.cpu().double() for tensor in (out.detach(), *torch.autograd.grad(out, inputs, grad.to(out)))]


def assert_as_good(ours, expected, dtype):
    """As good as rounding to the dtype allows."""
    for value, wanted in zip(ours, expected, strict=True):
        scale = max(1.0, wanted.abs().max().item()) if wanted.numel() else 1.0
        assert_close(value, wanted, atol=4 * torch.finfo(dtype).eps * scale, rtol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_motion_saliency_is_the_formula(backend, device, shape, layout, dtype):
    clip = LAYOUTS[layout](draw(*shape, dtype=dtype, device=device, scale=2.0))
    grad = draw(*shape, dtype=dtype, seed=1)[:, :, 1:]
    expected = with_gradients(saliency_formula, [clip.double()], grad)
    ours = with_gradients(partial(motion_saliency, backend=backend), [clip], grad)
    assert_as_good(ours, expected, dtype)
    assert motion_saliency(clip, backend=backend).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_motion_saliency_of_any_size_of_number(backend, device, dtype):
    """The native sigmoid is a polynomial of its own: where it could overflow, and where it must be NaN."""
    steps = torch.tensor([0, 1e-30, 0.5, 1, 20, 87.3, 88.5, 89, 104, 1e4, 1e30, float("nan")], dtype=dtype)
    pairs = torch.cartesian_prod(torch.cat([steps, -steps]), torch.cat([steps, -steps])).to(device)
    clip = pairs.T.reshape(1, 1, 2, 24, 24)
    ours, expected = motion_saliency(clip, backend=backend), saliency_formula(clip.double()).to(dtype)
    assert_close(ours, expected, equal_nan=True, rtol=4 * torch.finfo(dtype).eps, atol=1e-30)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_motion_saliency_under_autocast(backend, device, dtype):
    clip = draw(2, 24, 3, 5, 4, dtype=torch.float32, device=device)
    with torch.autocast(device.type, dtype):
        saliency = motion_saliency(clip)
        assert motion_saliency(clip.double()).dtype == torch.float64
    assert torch.equal(saliency, motion_saliency(clip).to(dtype))  # computed as before, rounded once
    grad = draw(2, 24, 2, 5, 4, dtype=dtype, device=device)
    with torch.autocast(device.type, dtype):
        ours = with_gradients(motion_saliency, [clip], grad)
    expected = with_gradients(motion_saliency, [clip], grad.float())
    assert_close(ours[1], expected[1])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("batch", "num_steps", "channels", "side"), [(2, 3, 5, 4), (1, 1, 64, 1), (3, 2, 72, 3)])
def test_add_context_is_the_formula(backend, device, batch, num_steps, channels, side, layout, dtype):
    shape = batch * num_steps, channels, side, side + 1
    frames, shortcut = (LAYOUTS[layout](draw(*shape, dtype=dtype, device=device, seed=seed)) for seed in (1, 2))
    context = draw(batch, channels, dtype=torch.promote_types(dtype, torch.float32), device=device, seed=3)
    inputs, grad = [frames, context, shortcut], draw(*shape, dtype=dtype, seed=4)
    expected = with_gradients(context_formula, [tensor.double() for tensor in inputs], grad)
    assert_as_good(with_gradients(partial(add_context, backend=backend), inputs, grad), expected, dtype)


def test_add_context_keeps_nan_and_takes_mixed_dtypes(backend, device):
    frames = torch.full((2, 4, 1, 1), float("nan"), device=device)
    context, shortcut = torch.zeros(1, 4, device=device), torch.zeros(2, 4, 1, 1, device=device, dtype=torch.bfloat16)
    assert add_context(frames, context, shortcut, backend=backend).isnan().all()
    assert add_context(shortcut, context, frames, backend=backend).dtype == torch.float32
    assert add_context(frames[:0], context[:0], shortcut[:0], backend=backend).shape == (0, 4, 1, 1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck(backend, device, layout):
    clip = LAYOUTS[layout](draw(2, 3, 3, 4, 5, dtype=torch.float32, device=device))
    frames = LAYOUTS[layout](draw(4, 3, 2, 5, dtype=torch.float32, device=device))
    context = draw(2, 3, dtype=torch.float32, device=device)
    torch.library.opcheck(SALIENCY, (clip.clone().requires_grad_(), torch.float32))
    torch.library.opcheck(SALIENCY_BACKWARD, (torch.ones_like(clip[:, :, 1:]), clip))
    torch.library.opcheck(CONTEXT, tuple(x.clone().requires_grad_() for x in (frames, context, frames)))


def test_gradcheck(backend, device):
    clip, frames, context = draw(1, 2, 3, 2, 3), draw(4, 2, 2, 3, seed=1), draw(2, 2, seed=2)
    inputs = [tensor.to(device).requires_grad_() for tensor in (clip, frames, context, frames.flip(0))]
    assert torch.autograd.gradcheck(partial(motion_saliency, backend=backend), inputs[:1])
    assert torch.autograd.gradcheck(partial(add_context, backend=backend), inputs[1:])


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: motion_saliency(torch.zeros(2, 3, 4, 5)), ValueError, "clip must be"),
        (lambda: motion_saliency(torch.zeros(1, 2, 3, 4, 5, dtype=torch.uint8)), TypeError, "floating point"),
        (lambda: SALIENCY(torch.zeros(1, 2, 0, 4, 5), torch.float32), ValueError, "clip must be"),
        (lambda: SALIENCY(torch.zeros(1, 2, 3, 4, 5), torch.int64), TypeError, "saliency must be"),
        (lambda: SALIENCY_BACKWARD(torch.zeros(1, 2, 3, 4, 5), torch.zeros(1, 2, 3, 4, 5)), ValueError, "grad must"),
        (lambda: add_context(torch.zeros(3, 2, 1, 1), torch.zeros(2, 2), torch.zeros(3, 2, 1, 1)), ValueError, "need"),
        (lambda: add_context(torch.zeros(4, 2, 1, 1), torch.zeros(2, 3), torch.zeros(4, 2, 1, 1)), ValueError, "need"),
        (lambda: add_context(torch.zeros(2, 2, 1, 1), torch.zeros(2, 2), torch.zeros(2, 2, 1, 2)), ValueError, "like"),
        (lambda: add_context(*[torch.zeros(2, 2, 1, 1).int()] * 3), ValueError, "need context"),
    ],
)
def test_errors(call, error, match):
    with pytest.raises(error, match=match):
        call()
