"""Every model as a graph, under autocast and on every backend."""

import shutil

import pytest
import torch
from nano_models import ALL, NANO, SMALL, build, clip, with_moving_taps
from torch import nn
from torch.testing import assert_close

from sifa_zoo.ops import native


@pytest.mark.parametrize("name", SMALL)
def test_compiled_whole(name):
    model = build(name, num_frames=8).eval()
    backend = "inductor" if shutil.which("g++") else "aot_eager"  # inductor writes C++
    with torch.inference_mode():
        compiled = torch.compile(model, fullgraph=True, backend=backend)
        assert_close(compiled(clip()), model(clip()), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", NANO)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_near_float32(name, dtype):
    model = build(name)
    for parameter in model.parameters():  # away from the zero start, where branches are silent
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    model.eval()
    exact = model.forward_features(clip())
    with torch.autocast("cpu", dtype):
        features = model.forward_features(clip())
        out = model(clip())
    out.float().sum().backward()
    assert ((features - exact).norm() / exact.norm()).item() < 2e-2
    assert out.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", ALL)
def test_every_model_gives_the_same_logits_on_every_backend(name):
    if isinstance(reason := native.load("cpu", may_build=True), str):
        pytest.skip(reason)
    model = with_moving_taps(build(name)).eval()
    with torch.inference_mode():
        logits = {}
        for backend in ("cpu", "torch"):
            model.set_backend(backend)
            logits[backend] = model(clip(num_frames=12))
    assert (logits["cpu"] - logits["torch"]).abs().max() <= 2e-5


def test_backend_is_checked():
    with pytest.raises(ValueError, match="backend must be"):
        build(NANO[0]).set_backend("onnx")
