"""Weights by name, from the package, the Hub, folders and files: all the same, or an error that says why not."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants as hf
import pytest
import timm
import torch
from safetensors.torch import load_file, save, save_file
from timm.models._hub import save_for_hf

import sifa_zoo
from sifa_zoo.weights import finding
from sifa_zoo.weights.finding import EMBEDDED
from sifa_zoo.weights.hub import (
    CorruptError,
    MismatchError,
    OfflineError,
    RepositoryError,
    UnpublishedError,
    WeightsError,
)
from sifa_zoo.weights.manifest import read_manifest

NANO = "sifa_net_nano.motion"
FILE = EMBEDDED / f"{NANO}.safetensors"
REPO = "someone/motion"


def same(model, other):
    state, other_state = model.state_dict(), other.state_dict()
    return state.keys() == other_state.keys() and all(torch.equal(state[name], other_state[name]) for name in state)


@pytest.fixture
def published(hub):
    """The embedded weights as a repository of the Hub."""
    config = {"architecture": "sifa_net_nano", "sifa_zoo": {"sha256": read_manifest()[NANO].sha256}}
    hub.add(REPO, {"model.safetensors": FILE.read_bytes(), "config.json": json.dumps(config).encode()})
    return hub


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.safetensors").write_bytes(FILE.read_bytes())
    return tmp_path / "folder"


def test_every_way_gives_the_same_model(published, folder):
    model = sifa_zoo.create_model("sifa_net_nano", pretrained=True)
    commit = published.repos[REPO].branches["main"]
    for name in (NANO, f"hf-hub:{REPO}", f"hf-hub:{REPO}@{commit}", f"local-dir:{folder}"):
        assert same(model, sifa_zoo.create_model(name, pretrained=True)), name
        assert same(model, sifa_zoo.create_model(name)), name
    assert same(model, sifa_zoo.create_model("sifa_net_nano", checkpoint_path=FILE))
    for name in ("sifa_net_nano", NANO, f"hf-hub:{REPO}", f"local-dir:{folder}"):
        if name.startswith("local-dir"):
            (folder / "config.json").write_text('{"architecture": "sifa_net_nano", "pretrained_cfg": {}}')
        assert same(model, timm.create_model(name, pretrained=True)), name


@pytest.mark.parametrize("source", [{"pretrained": True}, {"checkpoint_path": FILE}], ids=["pretrained", "file"])
def test_weights_bring_their_settings(source):
    model = sifa_zoo.create_model("sifa_net_nano", **source)
    entry = read_manifest()[NANO]
    cfg = model.pretrained_cfg
    assert (model.num_classes, model.num_frames) == (8, entry.clip["num_frames"])
    assert model.img_size == (entry.clip["img_size"],) * 2
    assert list(cfg["label_names"]) == entry.class_names
    assert cfg["frame_stride"] == entry.clip["frame_stride"]
    assert cfg["input_size"] == (3, *model.img_size)
    assert model.training


def test_pretrained_takes_the_first_entry_that_loads():
    assert sifa_zoo.create_model("sifa_net_nano", pretrained=True).pretrained_cfg["tag"] == "motion"


def test_a_folder_that_timm_saved(tmp_path):
    model = sifa_zoo.create_model(NANO).eval()
    save_for_hf(model, tmp_path / "saved", safe_serialization=True)
    again = sifa_zoo.create_model(f"local-dir:{tmp_path / 'saved'}").eval()
    assert same(model, again)
    assert again.pretrained_cfg["label_names"] == model.pretrained_cfg["label_names"]
    assert again.num_frames == model.num_frames


def test_a_cached_repository_needs_no_connection(published, monkeypatch):
    model = sifa_zoo.create_model(f"hf-hub:{REPO}")

    def refuse(*_args, **_kwargs):
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert same(model, sifa_zoo.create_model(f"hf-hub:{REPO}"))


def test_the_environment_of_the_hub_is_honoured(published, tmp_path):
    code = f"import sifa_zoo; print(sifa_zoo.create_model('hf-hub:{REPO}').num_classes)"
    env = {**os.environ, "HF_ENDPOINT": published.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    env.pop("HF_HUB_CACHE", None)
    root = Path(__file__).parents[2]
    for offline in ("0", "1"):
        env["HF_HUB_OFFLINE"] = offline
        done = subprocess.run([sys.executable, "-c", code], cwd=root, env=env, capture_output=True, text=True)
        assert done.stdout.strip() == "8", done.stderr
    assert len(published.downloads("model.safetensors")) == 1
    assert list((tmp_path / "home" / "hub").glob("models--*"))


@pytest.mark.parametrize("name", ["sifa_transformer_base.k400", "sifa_net_r50.ssv1", "sifa_net_r50.nonsense"])
@pytest.mark.parametrize("create", [sifa_zoo.create_model, timm.create_model], ids=["sifa_zoo", "timm"])
@pytest.mark.parametrize("pretrained", [True, False])
def test_weights_that_nobody_released_are_an_error(name, create, pretrained):
    with pytest.raises(UnpublishedError, match=rf"there are no weights '{name}'.*These load: .*{NANO}"):
        create(name, pretrained=pretrained)


def test_no_network_and_no_cache(hub, monkeypatch):
    monkeypatch.setattr(hf, "HF_HUB_OFFLINE", True)
    with pytest.raises(OfflineError, match=r"timm/resnet50.tv_in1k/model.safetensors@78f3ec.* is not in the cache"):
        sifa_zoo.create_model("sifa_net_r50", pretrained=True)


@pytest.mark.parametrize("name", ["hf-hub:someone/nothing", f"hf-hub:{REPO}@v9"])
def test_repositories_that_are_not_there(published, name):
    with pytest.raises(RepositoryError):
        sifa_zoo.create_model(name, pretrained=True)


def test_a_repository_of_something_else(hub):
    hub.add("someone/bert", {"config.json": b'{"model_type": "bert"}', "model.safetensors": FILE.read_bytes()})
    with pytest.raises(MismatchError, match="hf-hub:someone/bert: config.json does not name a model"):
        sifa_zoo.create_model("hf-hub:someone/bert")
    cfg = {"architecture": "resnet50", "pretrained_cfg": {"input_size": [3, 224, 224]}}
    hub.add("timm/resnet", {"config.json": json.dumps(cfg).encode(), "model.safetensors": save({"a": torch.ones(1)})})
    with pytest.raises(MismatchError, match="hf-hub:timm/resnet holds weights of resnet50, not of this project"):
        sifa_zoo.create_model("hf-hub:timm/resnet")


def test_an_altered_download_is_refused_and_removed(published):
    published.fail("/cdn/", corrupt=True)
    with pytest.raises(CorruptError, match="has the sha256 .* it was removed"):
        sifa_zoo.create_model(f"hf-hub:{REPO}")
    assert sifa_zoo.create_model(f"hf-hub:{REPO}").num_classes == 8


def test_an_embedded_file_that_was_altered(tmp_path, monkeypatch):
    (tmp_path / FILE.name).write_bytes(FILE.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(finding, "EMBEDDED", tmp_path)
    with pytest.raises(CorruptError, match="expected"):
        sifa_zoo.create_model(NANO)


def test_another_architecture(folder):
    with pytest.raises(MismatchError, match=r"holds weights of sifa_net_nano, not of sifa_net_r50"):
        sifa_zoo.create_model("sifa_net_r50", checkpoint_path=FILE)


def test_two_weights_at_once():
    for name, pretrained in (("sifa_net_nano", True), (NANO, False)):
        with pytest.raises(ValueError, match="two sets of weights"):
            sifa_zoo.create_model(name, pretrained, checkpoint_path=FILE)


def test_pickles_are_refused_with_the_converter(tmp_path):
    with pytest.raises(
        WeightsError, match=r"only safetensors files are loaded; convert it with `sifa-zoo convert .*weights.pth"
    ):
        sifa_zoo.create_model("sifa_net_nano", checkpoint_path=tmp_path / "weights.pth")


def test_a_file_whose_names_and_head_disagree(tmp_path):
    from safetensors import safe_open

    with safe_open(FILE, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(FILE)
    tensors |= {"head.fc.weight": tensors["head.fc.weight"][:5].clone(), "head.fc.bias": torch.zeros(5)}
    save_file(tensors, tmp_path / "five.safetensors", metadata)
    with pytest.raises(MismatchError, match="names 8 classes, its head has 5"):
        sifa_zoo.create_model("sifa_net_nano", checkpoint_path=tmp_path / "five.safetensors")
    save_file(tensors, tmp_path / "bad.safetensors", {"sifa_zoo": "{}"})
    with pytest.raises(CorruptError, match="its metadata 'sifa_zoo' cannot be read"):
        sifa_zoo.create_model("sifa_net_nano", checkpoint_path=tmp_path / "bad.safetensors")


@pytest.mark.parametrize("make", ["missing", "empty", "nameless"])
def test_folders_that_hold_no_weights(tmp_path, make):
    path = tmp_path / make
    if make != "missing":
        path.mkdir()
    if make == "nameless":
        save_file({"a": torch.zeros(1)}, path / "model.safetensors")
    match = {"missing": "no such folder", "empty": "holds no best.safetensors", "nameless": "says which model it is"}
    with pytest.raises(WeightsError, match=match[make]):
        sifa_zoo.create_model(f"local-dir:{path}")
