"""Models by name, from this package, timm and torch.hub."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

import sifa_zoo
from sifa_zoo.weights.hub import WeightsError

ROOT = Path(__file__).parents[1]
NAMES = [f"sifa_net_{size}" for size in ("nano", "r101", "r50")] + [
    f"sifa_transformer_{size}" for size in ("base", "large", "nano", "small", "tiny")
]


def test_names():
    assert sifa_zoo.list_models() == NAMES
    assert sifa_zoo.list_models("*nano") == ["sifa_net_nano", "sifa_transformer_nano"]
    assert all(sifa_zoo.is_model(name) for name in NAMES)
    assert not sifa_zoo.is_model("resnet50")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("sifa_net_r5", "did you mean sifa_net_r50"),
        ("sifa_transformer_bas", "did you mean sifa_transformer_base"),
        ("zzz", "sifa_net_nano, .*sifa_transformer_tiny"),
    ],
)
def test_unknown_names(name, match):
    with pytest.raises(ValueError, match=match):
        sifa_zoo.create_model(name)


@pytest.mark.parametrize("name", NAMES)
def test_timm_builds_the_same(name):
    model = timm.create_model(name, num_classes=7, num_frames=8, device="meta")
    assert type(model) is type(sifa_zoo.create_model(name, device="meta"))
    assert (model.num_classes, model.num_frames) == (7, 8)
    assert model.default_cfg["architecture"] == name


def test_timm_features_only():
    features = timm.create_model("sifa_transformer_nano", features_only=True, out_indices=(0, -1), img_size=64)
    assert [tuple(m.shape) for m in features(torch.randn(1, 3, 8, 64, 64))] == [(1, 24, 2, 16, 16), (1, 192, 2, 2, 2)]


def test_import_is_cheap():
    heavy = ("av", "matplotlib", "sifa_zoo.video", "sifa_zoo.runtime")
    code = f"import sys, sifa_zoo; print([name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    model = sifa_zoo.create_model("sifa_net_nano", num_classes=5)
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    return model, path


def test_checkpoint_path_loads_all(checkpoint):
    model, path = checkpoint
    again = sifa_zoo.create_model("sifa_net_nano", checkpoint_path=path)
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in again.state_dict().items())


def test_another_number_of_classes_renews_only_the_head(checkpoint, caplog):
    model, path = checkpoint
    with caplog.at_level(logging.WARNING):
        again = sifa_zoo.create_model("sifa_net_nano", checkpoint_path=path, num_classes=9)
    assert len([r for r in caplog.records if "head is re-initialised for 9 classes" in r.message]) == 1
    changed = [
        n for n, t in again.state_dict().items() if not torch.equal(t, model.state_dict().get(n, torch.empty(0)))
    ]
    assert changed == ["head.fc.weight", "head.fc.bias"]


def test_checkpoint_path_with_features_only(checkpoint):
    model, path = checkpoint
    features = sifa_zoo.create_model("sifa_net_nano", checkpoint_path=path, features_only=True, out_indices=(2,))
    x = torch.randn(1, 3, 8, 64, 64)
    (expected,) = model.eval().forward_intermediates(x, [2], intermediates_only=True)
    torch.testing.assert_close(features.eval()(x)[0], expected)


def test_checkpoints_that_do_not_load(checkpoint, tmp_path):
    model, path = checkpoint
    with pytest.raises(WeightsError, match="no such file"):
        sifa_zoo.create_model("sifa_net_nano", checkpoint_path=tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="only safetensors files are loaded.*sifa-zoo convert"):
        sifa_zoo.create_model("sifa_net_nano", checkpoint_path="weights.pth")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(WeightsError, match="broken.safetensors: not a safetensors file, or damaged"):
        sifa_zoo.create_model("sifa_net_nano", checkpoint_path=broken)
    save_file({f"x.{n}": t for n, t in model.state_dict().items()}, broken)
    with pytest.raises(WeightsError, match="does not fit SIFANet: .* missing: .* unexpected: "):
        sifa_zoo.create_model("sifa_net_nano", checkpoint_path=broken, num_classes=5)
    with pytest.raises(WeightsError, match="does not fit SIFANet"):
        sifa_zoo.create_model("sifa_net_r50", checkpoint_path=path, num_classes=5)


def test_a_damaged_head_is_an_error(checkpoint, tmp_path):
    model, _ = checkpoint
    damaged = {name: tensor for name, tensor in model.state_dict().items() if name != "head.fc.bias"}
    save_file(damaged, tmp_path / "damaged.safetensors")
    with pytest.raises(WeightsError, match="1 missing: head.fc.bias"):
        sifa_zoo.create_model("sifa_net_nano", checkpoint_path=tmp_path / "damaged.safetensors")
    del damaged["head.fc.weight"]
    save_file(damaged, tmp_path / "headless.safetensors")
    with pytest.raises(WeightsError, match="has no classifier: pass num_classes"):
        sifa_zoo.create_model("sifa_net_nano", checkpoint_path=tmp_path / "headless.safetensors")


def test_weights_do_not_load_into_nothing(checkpoint):
    with pytest.raises(ValueError, match="meta"):
        sifa_zoo.create_model("sifa_net_nano", checkpoint_path=checkpoint[1], device="meta")


def test_out_indices_need_features_only():
    with pytest.raises(ValueError, match="features_only=True"):
        sifa_zoo.create_model("sifa_net_nano", out_indices=(1,))
