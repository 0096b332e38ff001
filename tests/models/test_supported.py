"""The table of docs/models.md, for both families and for trunks with maps and with tokens."""

import copy
import pickle

import pytest
import torch
from nano_models import SMALL, build, clip, with_moving_taps
from torch.func import functional_call, grad
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

MODELS = list(SMALL)


def built(name, **kwargs):
    return with_moving_taps(build(name, num_frames=8, **kwargs)).eval()


def parts(model):
    """Parameters and buffers, for functions of the parameters."""
    return {n: p.detach() for n, p in model.named_parameters()}, dict(model.named_buffers())


def gradients(model, x):
    model.zero_grad()
    model(x).square().sum().backward()
    return {n: parameter.grad.clone() for n, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", MODELS)
def test_gradients_as_functions(name):
    model = built(name)
    parameters, buffers = parts(model)
    found = grad(lambda p, x: functional_call(model, (p, buffers), (x,)).square().sum())(parameters, clip(2))
    assert_close(found, gradients(model, clip(2)), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_clips_one_by_one(name):
    model = built(name)
    assert_close(torch.vmap(lambda x: model(x[None])[0])(clip(3)), model(clip(3)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_each_clip(name):
    model = built(name)
    parameters, buffers = parts(model)

    def loss(p, x):
        return functional_call(model, (p, buffers), (x[None],)).square().sum()

    each = torch.vmap(grad(loss), in_dims=(None, 0))(parameters, clip(2))
    assert_close({n: g.sum(0) for n, g in each.items()}, gradients(model, clip(2)), atol=1e-4, rtol=1e-3)
    first = gradients(model, clip(2)[:1])
    assert_close({n: g[0] for n, g in each.items()}, first, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", MODELS)
def test_half_precisions(name, dtype):
    """All of a model in 16 bits; autocast has a test of its own."""
    model = built(name)
    exact = model(clip())
    logits = model.to(dtype)(clip().to(dtype))
    assert logits.dtype == dtype
    assert (logits.float() - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("name", MODELS)
def test_channels_last(name):
    model = built(name)
    expected = model(clip(2))
    model.to(memory_format=torch.channels_last)
    assert_close(model(clip(2)), expected, atol=1e-5, rtol=1e-5)
    assert_close(model(clip(2).to(memory_format=torch.channels_last_3d)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_copies(name):
    model = built(name)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(clip()), model(clip()))
        assert copied.pretrained_cfg == model.pretrained_cfg


@pytest.mark.parametrize("name", MODELS)
def test_meta_device(name):
    logits = built(name, device="meta")(clip(2).to("meta"))
    assert logits.is_meta
    assert logits.shape == (2, 5)


@pytest.mark.parametrize("name", MODELS)
def test_compiled_for_any_batch(name):
    """One graph, by all of the compiler but what writes code, which takes minutes."""
    model = built(name, **SMALL[name])
    compiled = torch.compile(model, dynamic=True, fullgraph=True, backend="aot_eager")
    for x in (clip(2), clip(3)):
        assert_close(compiled(x), model(x), atol=1e-5, rtol=1e-5)
    found = gradients(model, clip(2))
    model.zero_grad()
    compiled(clip(2)).square().sum().backward()
    assert_close({n: p.grad for n, p in model.named_parameters()}, found, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("name", "billions"), [("sifa_net_r50", 17.95), ("sifa_transformer_base", 69.51)])
def test_multiplications(name, billions):
    """Those of docs/models.md: half of the FLOPs outside the operator, for 16 frames of 224."""
    model = build(name, img_size=224, num_classes=400, device="meta")
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.empty(1, 3, 16, 224, 224, device="meta"))
    counts = counter.get_flop_counts()["Global"]
    inside = sum(flops for operator, flops in counts.items() if "inter_frame_attention" in str(operator))
    assert inside > 0
    assert round((counter.get_total_flops() - inside) / 2e9, 2) == billions
