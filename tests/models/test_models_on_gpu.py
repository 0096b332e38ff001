"""Whole models on a GPU: gradients, autocast, graphs, and weights that cross devices. `test_golden.py` has values."""

import pytest
import torch
from nano_models import NANO, build, clip
from torch.testing import assert_close


@pytest.fixture(autouse=True)
def _float32_products(gpu):
    """Not TF32, in which convolutions of float32 are computed by default."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def gradients(model, clips):
    logits = model(clips)
    logits.square().sum().backward()
    return [logits.detach().cpu(), *(parameter.grad.cpu() for parameter in model.parameters())]


def assert_close_in_scale(found, expected, tolerance):
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs, atol=tolerance * max(theirs.abs().max().item(), 1e-3), rtol=0)


@pytest.mark.parametrize("name", NANO)
def test_gradients_equal_the_cpu(gpu, name):
    expected = gradients(build(name).eval(), clip(2))
    found = gradients(build(name).eval().to(gpu), clip(2).to(gpu))
    assert_close_in_scale(found, expected, 1e-2)  # where a ReLU is within rounding of zero, the gradient jumps


@pytest.mark.parametrize("name", NANO)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(gpu, name, dtype):
    model = build(name).to(gpu).eval()
    expected = model(clip(2).to(gpu))
    with torch.autocast(gpu.type, dtype):
        logits = model(clip(2).to(gpu))
    assert_close(logits.float(), expected, atol=0.05 * expected.abs().max().item(), rtol=0)
    logits.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", NANO)
def test_a_graph_replays_on_other_clips(gpu, name):
    model, clips = build(name).to(gpu).eval(), clip(2).to(gpu)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.inference_mode():
        with torch.cuda.stream(side):
            model(clips)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = model(clips)
        clips.copy_(clip(2).flip(2))
        graph.replay()
        assert_close(captured, model(clips), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NANO)
def test_every_backend_gives_the_same(gpu, name):
    model, clips = build(name).to(gpu).eval(), clip(2).to(gpu)
    with torch.inference_mode():
        expected = model(clips)
        model.set_backend("torch")
        assert_close(model(clips), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NANO)
def test_weights_cross_devices(gpu, name, tmp_path):
    model = build(name).to(gpu)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other = build(name)
    other.load_state_dict(torch.load(tmp_path / "weights.pt", map_location="cpu"))
    assert_close(dict(other.state_dict()), {key: value.cpu() for key, value in model.state_dict().items()})


@pytest.mark.parametrize("name", NANO)
def test_gradient_checkpointing_changes_nothing(gpu, name):
    model, clips = build(name).to(gpu).eval(), clip(2).to(gpu)
    expected = gradients(model, clips)
    model.zero_grad()
    model.set_grad_checkpointing(True)
    assert_close_in_scale(gradients(model, clips), expected, 1e-4)
