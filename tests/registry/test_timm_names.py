"""timm knows our models once both packages are imported, in whatever order."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models._features import FeatureGetterNet
from timm.models._hub import save_for_hf

import sifa_zoo
from sifa_zoo.weights.manifest import read_manifest

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
assert set(timm.list_pretrained("sifa*")) == set(sifa_zoo.list_models("sifa*", pretrained=True))
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


TAGS = ["sifa_net_nano.motion", "sifa_transformer_nano.motion"]


@pytest.mark.parametrize("name", TAGS)
def test_a_tag_without_pretrained_is_the_same_model_without_its_weights(name):
    loaded, drawn = timm.create_model(name, pretrained=True), timm.create_model(name, pretrained=False)
    state = drawn.state_dict()
    assert {n: t.shape for n, t in loaded.state_dict().items()} == {n: t.shape for n, t in state.items()}
    assert not torch.equal(loaded.head.fc.weight, drawn.head.fc.weight)
    assert (drawn.num_classes, drawn.num_frames, drawn.img_size) == (8, 8, (48, 48))
    for key in ("tag", "mean", "std", "frame_stride", "input_size", "license", "num_classes"):
        assert drawn.pretrained_cfg[key] == loaded.pretrained_cfg[key], key
    assert "label_names" not in drawn.pretrained_cfg  # its head is not trained
    other = timm.create_model(name, num_classes=3, img_size=64, in_chans=1)
    assert (other.num_classes, other.num_frames, other.img_size, other.in_chans) == (3, 8, (64, 64), 1)
    assert torch.equal(
        sifa_zoo.create_model(name).head.fc.weight, loaded.head.fc.weight
    )  # a name of weights loads them


def test_a_tag_of_the_hub_without_pretrained_downloads_nothing(hub):
    model = timm.create_model("sifa_net_r50.in1k", device="meta")
    assert (model.num_classes, model.pretrained_cfg["tag"]) == (1000, "in1k")
    assert not hub.requests


def test_a_saved_model_without_pretrained_is_built_as_it_was(tmp_path):
    model = sifa_zoo.create_model("sifa_net_nano.motion", kernel_size=3)
    save_for_hf(model, tmp_path, model_args={"kernel_size": 3}, safe_serialization=True)
    (tmp_path / "model.safetensors").unlink()
    drawn = timm.create_model(f"local-dir:{tmp_path}", pretrained=False)
    assert (drawn.num_classes, drawn.num_frames, drawn.img_size) == (8, 8, (48, 48))
    features = timm.create_model(f"local-dir:{tmp_path}", features_only=True)
    assert len(features(torch.randn(1, 3, 8, 48, 48))) == 5


@pytest.fixture
def checkpoint(tmp_path):
    """A file with two classes, and its tensors."""
    state = sifa_zoo.create_model("sifa_net_nano", num_classes=2, dual_head=True).state_dict()
    save_file(state, tmp_path / "best.safetensors")
    return tmp_path / "best.safetensors", state


def test_a_file_that_timm_loads_brings_its_number_of_classes(checkpoint):
    path, state = checkpoint
    model = timm.create_model("sifa_net_nano", checkpoint_path=path, dual_head=True)
    assert model.num_classes == model.pretrained_cfg["num_classes"] == 2
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert model.eval()(torch.randn(1, 3, 8, 48, 48)).shape == (1, 2)
    with pytest.raises(RuntimeError, match="size mismatch for head.fc.weight"):
        timm.create_model("sifa_net_nano", checkpoint_path=path, dual_head=True, num_classes=3)


def test_only_the_first_tensors_bring_classes_and_only_where_none_were_chosen(checkpoint):
    _, state = checkpoint
    model = timm.create_model("sifa_net_nano", dual_head=True)
    weight = model.head.fc.weight
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    for one in (model, again):
        one.load_state_dict(state)
        assert one.num_classes == 2
    assert model.head.fc.weight is weight  # so an optimiser that has it goes on training it
    three = sifa_zoo.create_model("sifa_net_nano", num_classes=3, dual_head=True).state_dict()
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.load_state_dict(three)
    model = timm.create_model("sifa_net_nano", dual_head=True)
    model.reset_classifier(5)
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.load_state_dict(three)


@pytest.mark.parametrize(
    "kwargs", [{"feature_cls": "list"}, {"feature_cfg": {}}, {"output_stride": 16}, {"output_dict": True}], ids=str
)
def test_what_timm_has_besides_is_refused_with_what_there_is(kwargs):
    with pytest.raises(
        TypeError, match=f"sifa_net_nano does not support timm's {next(iter(kwargs))}=; .*features_only"
    ):
        timm.create_model("sifa_net_nano", features_only=True, **kwargs)


@pytest.mark.parametrize("feature_cls", ["getter", FeatureGetterNet])
def test_the_getter_is_what_features_only_gives(feature_cls):
    features = timm.create_model("sifa_net_nano", features_only=True, feature_cls=feature_cls, out_indices=(1, 2))
    assert type(features) is FeatureGetterNet
    assert features.feature_info.reduction() == [4, 8]


@pytest.mark.parametrize("name", sifa_zoo.list_models("sifa*", pretrained=True))
def test_what_timm_knows_of_weights(name):
    cfg, entry = timm.get_pretrained_cfg(name), read_manifest()[name]
    clip = entry.clip_config
    assert cfg.input_size == (3, clip.img_size, clip.img_size)
    assert (cfg.mean, cfg.std, cfg.crop_pct) == (clip.mean, clip.std, clip.crop_pct)
    assert cfg.pool_size == timm.create_model(name, device="meta").pretrained_cfg["pool_size"]
    default = next(other for other in sifa_zoo.list_pretrained() if other.partition(".")[0] == name.partition(".")[0])
    cfg = timm.get_pretrained_cfg(name.partition(".")[0])  # timm means the default weights, and says so
    assert f"{cfg.architecture}.{cfg.tag}" == default
    assert cfg.description.startswith(f"{default}, clips ")


@pytest.mark.parametrize("name", ["sifa_net_nano", "sifa_transformer_nano"])
@pytest.mark.parametrize("size", [(48, 48), (112, 64), (224, 224)])
def test_pool_size_is_that_of_the_last_map(name, size):
    model = sifa_zoo.create_model(name, img_size=size).eval()
    assert model.forward_features(torch.randn(1, 3, 8, *size)).shape[3:] == model.pretrained_cfg["pool_size"]
