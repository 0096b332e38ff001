"""timm knows our models once both packages are imported, in whatever order."""

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

import sifa_zoo

ROOT = Path(__file__).parents[2]
NAMES = sifa_zoo.list_models()


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "first",
    [
        "import timm, sifa_zoo",
        "import sifa_zoo, timm",
        "import sifa_zoo; from timm import create_model; import timm",
        "import sifa_zoo, timm.models.resnet",
        "import sifa_zoo, importlib, timm; importlib.reload(timm)",
        "import sifa_zoo; sifa_zoo.create_model; import timm",
        "import torch, sifa_zoo.registry.names, timm",
    ],
)
def test_the_order_of_imports_does_not_matter(first):
    code = """
assert sorted(timm.list_models("sifa*")) == sifa_zoo.list_models()
assert set(timm.list_pretrained("sifa*")) == set(sifa_zoo.list_pretrained())
print(type(timm.create_model("sifa_net_nano", device="meta")).__name__)
import torch
print(torch.ops.sifa.inter_frame_attention.default.namespace)
"""
    assert run(f"{first}\n{code}").split() == ["SIFANet", "sifa"]


@pytest.mark.parametrize("first", ["import torch, sifa_zoo", "import sifa_zoo, torch"])
def test_torch_knows_the_operator_even_without_timm(first):
    code = f"{first}, sys; print(torch.ops.sifa.inter_frame_attention.default.namespace, 'timm' in sys.modules)"
    assert run(code) == "sifa False"


@pytest.mark.parametrize("name", NAMES)
def test_timm_builds_the_same(name):
    model = timm.create_model(name, num_classes=7, num_frames=8, device="meta")
    assert type(model) is type(sifa_zoo.create_model(name, device="meta"))
    assert (model.num_classes, model.num_frames) == (7, 8)
    assert model.default_cfg["architecture"] == name


def test_timm_features_only():
    features = timm.create_model("sifa_transformer_nano", features_only=True, out_indices=(0, -1), img_size=64)
    assert [tuple(m.shape) for m in features(torch.randn(1, 3, 8, 64, 64))] == [(1, 24, 2, 16, 16), (1, 192, 2, 2, 2)]
