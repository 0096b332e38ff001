"""The operators under `torch.func`: gradients, maps over clips, and what is refused; all as clip by clip without it."""

import itertools
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from sifa_zoo.ops import add_context, inter_frame_attention, motion_saliency

NUM_MAPPED = 3


def draw(*shape):
    return torch.randn(NUM_MAPPED, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


# Each operator with its inputs, the mapped dimension first.
CASES = {
    "attention": (inter_frame_attention, (draw(2, 4, 3, 5, 6), draw(2, 18, 3, 5, 6))),
    "attention, residual": (
        partial(inter_frame_attention, kernel_size=2, residual=True),
        (draw(1, 3, 4, 3, 5), draw(1, 8, 3, 3, 5)),
    ),
    "attention, no clip": (inter_frame_attention, (draw(0, 4, 3, 5, 6), draw(0, 18, 2, 5, 6))),
    "saliency": (motion_saliency, (draw(2, 3, 4, 3, 5),)),
    "context": (add_context, (draw(6, 4, 3, 5), draw(2, 4), draw(6, 4, 3, 5).flip(0))),
}


@pytest.fixture(params=CASES)
def case(request, backend, device):
    """A function and its inputs, on each backend."""
    function, inputs = CASES[request.param]
    return partial(function, backend=backend), tuple(tensor.to(device) for tensor in inputs)


def one_by_one(function, *inputs):
    return torch.stack([function(*[tensor[i] for tensor in inputs]) for i in range(NUM_MAPPED)])


def loss_of(function):
    return lambda *inputs: function(*inputs).square().sum()


def gradients(function, *inputs):
    """By plain autograd."""
    inputs = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    return torch.autograd.grad(loss_of(function)(*inputs), inputs)


def per_sample(function, *inputs):
    each = [gradients(function, *[tensor[i] for tensor in inputs]) for i in range(NUM_MAPPED)]
    return tuple(torch.stack(parts) for parts in zip(*each, strict=True))


def test_vmap_over_any_dimensions(case):
    function, inputs = case
    expected = one_by_one(function, *inputs)
    for dims in itertools.product((0, 1, -1), repeat=len(inputs)):
        moved = [tensor.movedim(0, dim) for tensor, dim in zip(inputs, dims, strict=True)]
        assert_close(torch.vmap(function, in_dims=dims)(*moved), expected)
    twice = [torch.stack([tensor, tensor.flip(0)]) for tensor in inputs]
    assert_close(torch.vmap(torch.vmap(function))(*twice), torch.stack([expected, expected.flip(0)]))


def test_vmap_over_one_input_only(case):
    function, inputs = case
    for mapped in range(len(inputs)):
        given = [tensor if index == mapped else tensor[0] for index, tensor in enumerate(inputs)]
        repeated = [
            tensor if index == mapped else tensor[:1].expand(tensor.shape) for index, tensor in enumerate(inputs)
        ]
        dims = tuple(0 if index == mapped else None for index in range(len(inputs)))
        assert_close(torch.vmap(function, in_dims=dims)(*given), one_by_one(function, *repeated))
        loss = torch.func.grad(loss_of(function), argnums=tuple(range(len(inputs))))
        assert_close(torch.vmap(loss, in_dims=dims)(*given), per_sample(function, *repeated))


def test_grad_and_vjp(case):
    function, inputs = case
    inputs = [tensor[0] for tensor in inputs]
    expected, numbers = gradients(function, *inputs), tuple(range(len(inputs)))
    assert_close(torch.func.grad(loss_of(function), argnums=numbers)(*inputs), expected)
    out, pull_back = torch.func.vjp(function, *inputs)
    assert_close(pull_back(2 * out), expected)


def test_gradients_and_maps_in_any_order(case):
    function, inputs = case
    expected, numbers = per_sample(function, *inputs), tuple(range(len(inputs)))
    assert_close(torch.vmap(torch.func.grad(loss_of(function), argnums=numbers))(*inputs), expected)
    mapped = torch.vmap(function)
    assert_close(torch.func.grad(loss_of(mapped), argnums=numbers)(*inputs), expected)
    assert_close(gradients(mapped, *inputs), expected)


def test_per_sample_gradients_of_a_layer(backend, device):
    """As of weights, which are not mapped."""
    weight, clips = torch.randn(4, 3, dtype=torch.float64, device=device), draw(1, 3, 3, 4, 5).to(device)
    offsets = draw(1, 18, 2, 4, 5).to(device)

    def loss(weight, clip, offset):
        clip = torch.einsum("dc,ncthw->ndthw", weight, clip)
        return inter_frame_attention(clip, offset, backend=backend).square().sum()

    ours = torch.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weight, clips, offsets)
    for i, gradient in enumerate(ours):
        given = weight.clone().requires_grad_()
        assert_close(gradient, torch.autograd.grad(loss(given, clips[i], offsets[i]), given)[0])


def test_jacrev(backend, device):
    clip, offset = draw(1, 2, 2, 2, 3)[0].to(device), draw(1, 2, 1, 2, 3)[0].to(device)
    function = partial(inter_frame_attention, kernel_size=1, backend=backend)
    expected = torch.autograd.functional.jacobian(function, (clip, offset))
    assert_close(torch.func.jacrev(function, argnums=(0, 1))(clip, offset), expected)
    with torch.no_grad():  # nor is a graph of the gradients kept
        assert_close(torch.func.jacrev(function, argnums=(0, 1))(clip, offset), expected)


def test_under_autocast(backend, device):
    clip, offset = (tensor.float().to(device) for tensor in CASES["attention"][1])
    loss = loss_of(partial(inter_frame_attention, backend=backend))
    with torch.autocast(device.type, torch.bfloat16):
        ours = torch.vmap(torch.func.grad(loss))(clip, offset)
        expected = per_sample(partial(inter_frame_attention, backend=backend), clip, offset)[0]
    assert_close(ours, expected, atol=0.05, rtol=0.05)


ONCE = ["attention", "attention, residual", "saliency"]  # plain PyTorch can differentiate the third twice


@pytest.mark.parametrize("name", ONCE)
def test_differentiating_twice_is_an_error_and_never_zero(backend, device, name):
    if (name, backend) == ("saliency", "torch"):
        pytest.skip("PyTorch's own operators")
    function, inputs = CASES[name]
    first, *others = (tensor[0].to(device) for tensor in inputs)

    def loss(x):  # whose gradient would have one without the operator, too
        return function(x, *others, backend=backend).sum() + x.pow(3).sum()

    def of_gradient(x):
        return torch.func.grad(loss)(x).sum()

    with pytest.raises(RuntimeError, match="twice"):
        torch.func.grad(of_gradient)(first)
    with pytest.raises(RuntimeError, match="twice"):
        torch.vmap(torch.func.grad(of_gradient))(torch.stack([first, first]))
    given = first.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(given), given, create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        gradient.sum().backward()


def test_context_can_be_differentiated_twice(backend, device):
    inputs = [tensor[0].to(device).requires_grad_() for tensor in CASES["context"][1]]
    assert torch.autograd.gradgradcheck(partial(add_context, backend=backend), inputs)


@pytest.mark.parametrize("name", ONCE)
def test_forward_mode_is_refused_at_any_level(backend, device, name):
    if (name, backend) == ("saliency", "torch"):
        pytest.skip("PyTorch's own operators")
    function, inputs = CASES[name]
    first, *others = (tensor[0].to(device) for tensor in inputs)
    call = lambda x: function(x, *others, backend=backend)  # noqa: E731
    with pytest.raises(RuntimeError, match="forward mode"):
        torch.vmap(lambda x: torch.func.jvp(call, (x,), (x,))[1])(torch.stack([first, first]))
    with pytest.raises(RuntimeError, match="forward mode"):
        torch.func.hessian(loss_of(call))(first)
