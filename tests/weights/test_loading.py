"""Tensors of a file in a model: all of them, fitted to its arguments, or an error that names the faults."""

import logging
import re

import pytest
import timm
import torch
from safetensors.torch import save, save_file

import sifa_zoo
from sifa_zoo.models.convert import inflate
from sifa_zoo.weights import finding
from sifa_zoo.weights.finding import EMBEDDED
from sifa_zoo.weights.hub import (
    MismatchError,
)
from sifa_zoo.weights.manifest import Entry, read_manifest

NANO = "sifa_net_nano.motion"
FILE = EMBEDDED / f"{NANO}.safetensors"
SWIN_FILE = EMBEDDED / "sifa_transformer_nano.motion.safetensors"


def changed(model, other):
    state = model.state_dict()
    return [n for n, t in other.state_dict().items() if n not in state or not torch.equal(t, state[n])]


@pytest.mark.parametrize("num_classes", [0, 3, 100])
def test_other_classes_renew_only_the_head(num_classes, caplog):
    model = sifa_zoo.create_model(NANO)
    with caplog.at_level(logging.INFO):
        other = sifa_zoo.create_model(NANO, num_classes=num_classes)
    lines = [r.message for r in caplog.records if "head is re-initialised" in r.message]
    assert len(lines) == (num_classes > 0)
    assert changed(model, other) == (["head.fc.weight", "head.fc.bias"] if num_classes else [])
    assert "label_names" not in other.pretrained_cfg
    assert other.num_classes == num_classes


def test_a_head_that_was_never_loaded_does_not_predict(tmp_path):
    with pytest.raises(ValueError, match="never trained"):
        sifa_zoo.predict(sifa_zoo.create_model(NANO, num_classes=3), "video.mp4")
    model = sifa_zoo.create_model(NANO)
    model.reset_classifier(8)
    with pytest.raises(ValueError, match="never trained"):
        sifa_zoo.predict(model, "video.mp4")


@pytest.mark.parametrize("source", [{"pretrained": True}, {"checkpoint_path": SWIN_FILE}], ids=["pretrained", "file"])
@pytest.mark.parametrize(
    "kwargs",
    [
        {"num_frames": 4},
        {"num_frames": 16},
        {"img_size": 32},
        {"img_size": (64, 112)},
        {"in_chans": 1},
        {"in_chans": 5},
        {"num_classes": 3, "img_size": 96, "in_chans": 1, "num_frames": 8},
        {"num_classes": 0, "global_pool": ""},
        {"dtype": torch.bfloat16},
        {"drop_path_rate": 0.3, "drop_rate": 0.1},
    ],
    ids=str,
)
def test_models_are_adapted(source, kwargs):
    model = sifa_zoo.create_model("sifa_transformer_nano", **source, **kwargs).eval()
    dtype = kwargs.get("dtype", torch.float32)
    out = model(torch.randn(2, model.in_chans, model.num_frames, *model.img_size, dtype=dtype))
    assert out.isfinite().all()
    assert out.dtype == dtype
    assert out.shape[:2] == (2, model.num_classes or model.num_features)
    assert not any(t.is_meta for t in (*model.parameters(), *model.buffers()))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_another_size_is_what_set_input_size_gives():
    model = sifa_zoo.create_model("sifa_transformer_nano", pretrained=True)
    model.set_input_size(img_size=96)
    other = sifa_zoo.create_model("sifa_transformer_nano", pretrained=True, img_size=96)
    clip = torch.randn(1, 3, 8, 96, 96)
    torch.testing.assert_close(other.eval()(clip), model.eval()(clip), atol=1e-4, rtol=1e-4)


def test_one_channel_sees_what_three_equal_ones_did():
    model = sifa_zoo.create_model(NANO).eval()
    grey = sifa_zoo.create_model(NANO, in_chans=1).eval()
    clip = torch.randn(1, 1, 8, 48, 48)
    torch.testing.assert_close(grey(clip), model(clip.expand(-1, 3, -1, -1, -1)), atol=1e-3, rtol=1e-3)


def test_feature_maps_are_those_of_the_model():
    model = sifa_zoo.create_model(NANO).eval()
    features = sifa_zoo.create_model(NANO, features_only=True, out_indices=(1, 3)).eval()
    clip = torch.randn(1, 3, 8, 48, 48)
    expected = model.forward_intermediates(clip, [1, 3], intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(features(clip), expected, strict=True))


def test_nothing_is_initialised_before_it_is_loaded(monkeypatch):
    drawn = []

    def spy(init):
        def drawing(tensor, *args, **kwargs):
            drawn.append(tensor.device.type)
            return init(tensor, *args, **kwargs)

        return drawing

    for name in ("normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_", "trunc_normal_"):
        monkeypatch.setattr(torch.nn.init, name, spy(getattr(torch.nn.init, name)))
    sifa_zoo.create_model("sifa_net_nano")
    assert set(drawn) == {"cpu"}
    drawn.clear()
    sifa_zoo.create_model(NANO)
    assert set(drawn) == {"meta"}


def test_weights_do_not_hang_on_the_file(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(FILE.read_bytes())
    model = sifa_zoo.create_model("sifa_net_nano", checkpoint_path=path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with open(path, "r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_at_most_twenty_names_are_listed(tmp_path):
    save_file({f"name{i}": torch.zeros(1) for i in range(50)}, tmp_path / "strange.safetensors")
    with pytest.raises(MismatchError, match=r"missing: .* \.\.\.; 50 unexpected: .* \.\.\.") as error:
        sifa_zoo.create_model("sifa_net_nano", checkpoint_path=tmp_path / "strange.safetensors", num_classes=3)
    assert len(re.findall(r"name\d", str(error.value))) == 20


def test_stems_that_cannot_be_fitted(tmp_path):
    save_file(sifa_zoo.create_model("sifa_net_nano", in_chans=2).state_dict(), tmp_path / "two.safetensors")
    with pytest.raises(MismatchError, match=r"conv1.0.weight \(16, 8, 3, 3\) where the model has \(16, 12, 3, 3\)"):
        sifa_zoo.create_model("sifa_net_nano", checkpoint_path=tmp_path / "two.safetensors")
    with pytest.raises(MismatchError, match="cannot be fitted to 5 channels"):
        sifa_zoo.create_model("sifa_net_nano", checkpoint_path=tmp_path / "two.safetensors", in_chans=5)


@pytest.fixture
def trunks(hub, monkeypatch):
    """Manifest entries of 2D trunks with drawn weights on the Hub, pinned or not."""
    torch.manual_seed(0)
    states = {"sifa_net_r50.in1k": timm.create_model("resnet50", num_classes=10).state_dict()}
    states["sifa_transformer_tiny.in1k"] = timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=10
    ).state_dict()
    entries = {}
    for name, state in states.items():
        content = save({key: tensor.contiguous() for key, tensor in state.items()}, {"format": "pt"})
        repo = f"timm/{name.replace('.', '-')}"
        hub.add(repo, {"model.safetensors": content})
        entry = read_manifest()[name]
        facts = {"repo": repo, "num_classes": 10, "revision": None, "sha256": None, "bytes": None}
        entries[name] = Entry(**entry.to_dict() | facts)
    monkeypatch.setattr(finding, "read_manifest", lambda: entries)
    return states


@pytest.mark.parametrize("name", ["sifa_net_r50.in1k", "sifa_transformer_tiny.in1k"])
def test_trunks_are_inflated(trunks, hub, name):
    torch.manual_seed(1)
    model = sifa_zoo.create_model(name.partition(".")[0], pretrained=True)
    other = sifa_zoo.create_model(name.partition(".")[0], num_classes=10)
    expected = inflate(trunks[name], other)
    added = tuple(n for n in expected if any(part in n for part in (".se.", ".aa.", ".temporal.")))
    assert all(torch.equal(t, expected[n]) for n, t in model.state_dict().items() if n not in added)
    zero = [n for n in added if ".se." not in n]
    assert all(not model.state_dict()[n].any() for n in zero)
    assert model.num_classes == 10
    assert "label_names" not in model.pretrained_cfg
    assert len(hub.downloads("model.safetensors")) == 1


def test_a_trunk_of_swin_is_swin_at_the_start(trunks):
    model = sifa_zoo.create_model("sifa_transformer_tiny", pretrained=True).eval()
    trunk = timm.create_model("swin_tiny_patch4_window7_224", num_classes=10).eval()
    trunk.load_state_dict(trunks["sifa_transformer_tiny.in1k"])
    clip = torch.randn(1, 3, 8, 224, 224)
    torch.testing.assert_close(model(clip), (trunk(clip[:, :, 2]) + trunk(clip[:, :, 6])) / 2, atol=1e-5, rtol=1e-4)


def test_a_trunk_at_another_size_with_new_classes(trunks):
    model = sifa_zoo.create_model("sifa_transformer_tiny", pretrained=True, img_size=64, num_classes=4, in_chans=1)
    assert model(torch.randn(1, 1, 8, 64, 64)).shape == (1, 4)
    model = sifa_zoo.create_model("sifa_net_r50", pretrained=True, dual_head=True, num_classes=4)
    assert torch.equal(model.layer4_dual[1].conv2.weight, model.layer4[1].conv2.weight)


def test_old_names_and_buffers_of_swin_are_understood(trunks):
    state = trunks["sifa_transformer_tiny.in1k"]
    old = {}
    for name, tensor in state.items():
        name = name.replace("head.fc.", "head.")
        for stage in (1, 2, 3):
            name = name.replace(f"layers.{stage}.downsample.", f"layers.{stage - 1}.downsample_.")
        old[name.replace("downsample_", "downsample")] = tensor
    old["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    old["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.long)
    model = sifa_zoo.create_model("sifa_transformer_tiny", num_classes=10, img_size=64)
    expected = inflate(state, model)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in inflate(old, model).items())
