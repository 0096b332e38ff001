"""Files that are not one `model.safetensors` in this project's names: read, or else told with the way out."""

import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save, save_file
from timm.models._hub import save_for_hf

import sifa_zoo
from sifa_zoo.models.convert import wrapper_prefix
from sifa_zoo.publishing.conversion import convert_file, read_checkpoint
from sifa_zoo.weights.contents import file_info
from sifa_zoo.weights.finding import EMBEDDED, find_weights
from sifa_zoo.weights.hub import CorruptError, MismatchError, RepositoryError, WeightsError
from sifa_zoo.weights.manifest import Entry, read_manifest
from sifa_zoo.weights.other_files import files_in, is_sharded, what_else

NANO = "sifa_net_nano.motion"
FILE = EMBEDDED / f"{NANO}.safetensors"
PARTS = [f"model-0000{part}-of-00002.safetensors" for part in (1, 2)]
REPO = "someone/motion"


@pytest.fixture
def sharded():
    """The embedded weights in two parts with their index, by file name."""
    tensors = load_file(FILE)
    halves = [dict(list(tensors.items())[half::2]) for half in (0, 1)]
    index = {"metadata": {}, "weight_map": {n: part for part, half in zip(PARTS, halves, strict=True) for n in half}}
    parts = {part: save(half) for part, half in zip(PARTS, halves, strict=True)}
    return parts | {"model.safetensors.index.json": json.dumps(index).encode()}


def put(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_sharded_weights_are_told_and_the_way_out_works(sharded, tmp_path, hub, monkeypatch):
    folder = put(tmp_path / "folder", sharded)
    wanted = r"belongs to sharded weights, which are not loaded; merge its parts into one model.safetensors: `(.*)`"
    with pytest.raises(WeightsError, match=wanted) as caught:
        sifa_zoo.create_model(f"local-dir:{folder}")
    for name in sharded:
        with pytest.raises(WeightsError, match=f"{name}: {name} {wanted}"):
            sifa_zoo.create_model("sifa_net_nano", checkpoint_path=folder / name)
    hub.add(REPO, sharded | {"config.json": b'{"architecture": "sifa_net_nano"}'})
    with pytest.raises(RepositoryError, match=f"has no such file; .*{wanted}"):
        sifa_zoo.create_model(f"hf-hub:{REPO}")

    monkeypatch.chdir(folder)
    exec(str(caught.value).split("`")[-2], {"PARTS": PARTS})
    merged = sifa_zoo.create_model("sifa_net_nano", checkpoint_path="model.safetensors")
    assert torch.equal(merged.conv1[0].weight, sifa_zoo.create_model(NANO).conv1[0].weight)


@pytest.mark.parametrize("name", ["model-00001-of-00001.safetensors", "model.safetensors", "a-of-b.safetensors"])
def test_one_part_of_one_is_a_file_like_any_other(name, tmp_path):
    assert not is_sharded(name)
    put(tmp_path, {name: FILE.read_bytes()})
    assert sifa_zoo.create_model("sifa_net_nano", checkpoint_path=tmp_path / name).num_classes == 8


def test_weights_in_subfolders_are_named(tmp_path, hub):
    files = {"weights/model.safetensors": FILE.read_bytes()}
    with pytest.raises(WeightsError, match=f"weights/model.safetensors lies in a subfolder: load local-dir:{tmp_path}"):
        sifa_zoo.create_model(f"local-dir:{put(tmp_path, files)}")
    assert sifa_zoo.create_model(f"local-dir:{tmp_path}/weights").num_classes == 8
    hub.add(REPO, files | {"weights/config.json": b"{}"})
    with pytest.raises(RepositoryError, match="config.json: .* no such file; weights/model.safetensors lies in a subf"):
        sifa_zoo.create_model(f"hf-hub:{REPO}")


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ([], ""),
        (["README.md", "sub/notes.txt"], ""),
        (["config.json", "state.pt"], ""),  # a run before its first epoch ended
        (["best.safetensors"], "; there is best.safetensors: download it and pass its path (checkpoint_path="),
        (
            ["a/b.safetensors"],
            "; a/b.safetensors lies in a subfolder: download it and pass its path (checkpoint_path=",
        ),
        (["optimizer.pt", "pytorch_model.bin"], "; pytorch_model.bin is a pickle, which is not loaded: save with"),
    ],
)
def test_what_else_a_repository_may_hold(names, wanted):
    assert what_else(names, f"hf-hub:{REPO}").startswith(wanted)
    assert bool(what_else(names, f"hf-hub:{REPO}")) == bool(wanted)


def test_a_large_folder_is_not_searched_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("sifa_zoo.weights.other_files._MOST", 3)
    assert len(files_in(put(tmp_path, {f"{i}.txt": b"" for i in range(9)}))) == 3


def test_a_hub_that_lists_no_files_still_says_which_one_is_missing(hub):
    hub.add(REPO, {"pytorch_model.bin": b""})
    hub.fail("/api/models/", status=500, times=float("inf"))
    with pytest.raises(RepositoryError, match="the repository has no such file$"):
        find_weights(f"hf-hub:{REPO}")


@pytest.mark.parametrize("create", [sifa_zoo.create_model, timm.create_model], ids=["sifa_zoo", "timm"])
def test_a_folder_that_timm_saved_as_a_pickle(tmp_path, monkeypatch, create):
    model = sifa_zoo.create_model(NANO)
    save_for_hf(model, tmp_path)
    with pytest.raises(WeightsError, match="pytorch_model.bin is a pickle.*safe_serialization=True.*`.*`") as caught:
        create(f"local-dir:{tmp_path}", pretrained=True)
    monkeypatch.chdir(tmp_path)
    exec(f"import torch, safetensors.torch; {str(caught.value).split('`')[-2]}")
    again = create(f"local-dir:{tmp_path}", pretrained=True)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_a_pickle_of_our_own_is_converted(tmp_path):
    model = sifa_zoo.create_model(NANO)
    torch.save(model.state_dict(), tmp_path / "ours.bin")
    output, kind = convert_file(tmp_path / "ours.bin", tmp_path / "ours.safetensors", model="sifa_net_nano")
    assert kind == "sifa_zoo"
    again = sifa_zoo.create_model("sifa_net_nano", checkpoint_path=output)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module._orig_mod."])
def test_prefixes_of_wrappers_are_removed(prefix, tmp_path):
    model = sifa_zoo.create_model(NANO)
    path = tmp_path / "model.safetensors"
    save_file({f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()}, path)
    again = sifa_zoo.create_model("sifa_net_nano", checkpoint_path=path)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert read_checkpoint(path).keys() == model.state_dict().keys()
    assert wrapper_prefix([]) == wrapper_prefix(["module.a", "b"]) == ""


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.uint8, torch.bool])
def test_integers_where_the_model_has_floats(dtype, tmp_path):
    tensors = load_file(FILE)
    tensors["head.fc.weight"] = tensors["head.fc.weight"].to(dtype)
    save_file(tensors, tmp_path / "quantised.safetensors")
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(MismatchError, match=f"1 tensors do not hold .*: head.fc.weight {name}; quantised weights"):
        sifa_zoo.create_model("sifa_net_nano", checkpoint_path=tmp_path / "quantised.safetensors")


def test_integers_in_a_trunk(hub, monkeypatch):
    trunk = timm.create_model("resnet50", num_classes=10).state_dict()
    trunk = {n: t.to(torch.int8) if n == "conv1.weight" else t for n, t in trunk.items()}
    hub.add(REPO, {"model.safetensors": save(trunk)})
    entry = Entry("published", "", REPO, "model.safetensors", format="timm", num_classes=10)
    monkeypatch.setattr("sifa_zoo.weights.finding.read_manifest", lambda: {"sifa_net_r50.in1k": entry})
    with pytest.raises(MismatchError, match="conv1.weight int8"):
        sifa_zoo.create_model("sifa_net_r50", pretrained=True)


CFG = {"input_size": [3, 48, 48], "num_frames": 8}


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ([], "does not name a model"),
        (None, "does not name a model"),
        ("text", "does not name a model"),
        (
            {"architecture": None},
            "architecture must be a string, got null; correct it, or load the file with checkpoint",
        ),
        ({"pretrained_cfg": None}, "pretrained_cfg must be an object, got null; correct it"),
        ({"pretrained_cfg": "text"}, 'pretrained_cfg must be an object, got "text"'),
        ({"sifa_zoo": None}, "sifa_zoo must be an object, got null"),
        ({"sifa_zoo": "text"}, "sifa_zoo must be an object"),
        ({"sifa_zoo": {"sha256": 1}}, "sifa_zoo.sha256 must be a string, got 1"),
        ({"pretrained_cfg": CFG, "model_args": "text"}, "model_args must be an object"),
        ({"pretrained_cfg": CFG, "label_names": 8}, "label_names must be a list, got 8"),
        ({"pretrained_cfg": {**CFG, "input_size": None}}, "pretrained_cfg.input_size must be a list, got null"),
        ({"pretrained_cfg": {**CFG, "input_size": []}}, "does not say how clips are cut"),
        ({"pretrained_cfg": {**CFG, "num_frames": None}}, "does not say how clips are cut"),
        ({"pretrained_cfg": {**CFG, "mean": None}}, "does not say how clips are cut"),
        ({"pretrained_cfg": {**CFG, "std": "text"}}, "does not say how clips are cut"),
    ],
    ids=str,
)
def test_configs_with_something_else_where_objects_belong(hub, tmp_path, config, match):
    whole = {"architecture": "sifa_net_nano", **config} if isinstance(config, dict) else config
    files = {"model.safetensors": save(load_file(FILE)), "config.json": json.dumps(whole).encode()}
    hub.add(REPO, files)
    for name in (f"hf-hub:{REPO}", f"local-dir:{put(tmp_path, files)}"):
        with pytest.raises(MismatchError, match=match) as caught:
            sifa_zoo.create_model(name)
        assert str(caught.value).startswith(f"{name}: ")


def test_a_config_that_is_no_json(hub):
    hub.add(REPO, {"model.safetensors": FILE.read_bytes(), "config.json": b"<html>"})
    with pytest.raises(MismatchError, match="config.json is not JSON .*; correct it"):
        sifa_zoo.create_model(f"hf-hub:{REPO}")


@pytest.mark.parametrize("text", ["[]", "null", '"text"', '{"clip": null}', '{"clip": "x", "class_names": []}'])
def test_metadata_of_something_else(tmp_path, text):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"sifa_zoo": text})
    with pytest.raises(CorruptError, match="its metadata 'sifa_zoo' cannot be read"):
        file_info(tmp_path / "a.safetensors")


def test_the_older_spelling_of_the_hub(hub):
    config = {"architecture": "sifa_net_nano", "sifa_zoo": {"sha256": read_manifest()[NANO].sha256}}
    hub.add(REPO, {"model.safetensors": FILE.read_bytes(), "config.json": json.dumps(config).encode()})
    assert sifa_zoo.create_model(f"hf_hub:{REPO}", pretrained=True).num_classes == 8
