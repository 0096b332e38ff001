"""Models by name, without weights and with those of a file."""

import logging

import pytest
import torch
from safetensors.torch import save_file

import sifa_zoo
from sifa_zoo.weights.hub import WeightsError


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
