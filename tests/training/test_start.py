"""Runs that start from the weights of a run, a file, a name or the Hub."""

from __future__ import annotations

import pytest
import torch
from tiny_videos import write_video, write_videos

import sifa_zoo
from sifa_zoo.evaluation.evaluate import evaluate_run
from sifa_zoo.runtime.checkpoint import load_run, read_info
from sifa_zoo.training.finetune import finetune
from sifa_zoo.weights.finding import EMBEDDED

MOTION = EMBEDDED / "sifa_net_nano.motion.safetensors"


@pytest.fixture
def from_run(run_folder):
    """Arguments that start from a run, and bring its model and clip settings."""
    return {"model": None, "clip": None, "checkpoint": run_folder}


@pytest.fixture
def videos(tmp_path):
    return write_videos(tmp_path / "videos", num_train=2, num_val=1)


def test_fine_tuning_from_a_run(run_folder, from_run, tmp_path, train, data):
    train(tmp_path / "run", epochs=1, lr=0.0, call=from_run)
    start, end = load_run(run_folder), load_run(tmp_path / "run")
    assert torch.equal(start.get_classifier().weight, end.get_classifier().weight)
    assert read_info(tmp_path / "run").clip == read_info(run_folder).clip
    assert evaluate_run(tmp_path / "run", data, workers=0, device="cpu")["videos"] == 4


def test_other_classes_renew_the_head(run_folder, from_run, videos, tmp_path, train, caplog):
    for split in ("train", "val"):
        write_video(videos / split / "green" / "0.mp4", color=(30, 200, 30))
    (videos / "train" / "red" / "bad.mp4").write_bytes(b"no video")  # is left out, which makes no other head
    train(tmp_path / "run", videos=videos, epochs=1, lr=0.0, batch_size=3, skip_bad=True, call=from_run)
    assert caplog.text.count("the head is re-initialised for 3 classes") == 1
    start, end = load_run(run_folder), load_run(tmp_path / "run")
    assert end.pretrained_cfg["label_names"] == ("blue", "green", "red")
    assert torch.equal(start.layer1[0].conv1.weight, end.layer1[0].conv1.weight)


def test_renamed_classes_renew_the_head(run_folder, from_run, videos, tmp_path, train, capsys):
    for split in ("train", "val"):
        (videos / split / "red").rename(videos / split / "crimson")
    train(tmp_path / "run", videos=videos, epochs=1, lr=0.0, call=from_run)
    assert capsys.readouterr().out.count("the head is re-initialised for classes of other names") == 1
    start, end = load_run(run_folder), load_run(tmp_path / "run")
    assert not torch.equal(start.get_classifier().weight, end.get_classifier().weight)


def test_a_linear_probe(run_folder, from_run, tmp_path, train):
    train(tmp_path / "run", epochs=1, linear_probe=True, call=from_run)
    start, end = load_run(run_folder).state_dict(), load_run(tmp_path / "run").state_dict()
    assert {name for name in start if not torch.equal(start[name], end[name])} == {"head.fc.weight", "head.fc.bias"}


@pytest.mark.parametrize(
    "start",
    [
        {"model": "sifa_net_nano", "pretrained": True},
        {"model": "sifa_net_nano.motion"},
        {"checkpoint": "hf-hub:someone/motion"},
        {"checkpoint": MOTION},
    ],
    ids=str,
)
def test_starting_from_weights(data, hub, tmp_path, start):
    config = b'{"architecture": "sifa_net_nano"}'
    hub.add("someone/motion", {"model.safetensors": MOTION.read_bytes(), "config.json": config})
    settings = {"epochs": 1, "batch_size": 2, "lr": 0.0, "weight_decay": 0.0, "workers": 0}
    finetune(data, output=tmp_path / "run", train=settings, device="cpu", **start)
    info = read_info(tmp_path / "run")
    assert info.arch == "sifa_net_nano"
    assert (info.clip.num_frames, info.clip.img_size) == (8, 48)  # as the weights were trained
    ours, theirs = load_run(tmp_path / "run").state_dict(), sifa_zoo.create_model("sifa_net_nano.motion").state_dict()
    parameters = [name for name in ours if "running" not in name and "num_batches" not in name and "head" not in name]
    assert all(torch.equal(ours[name], theirs[name]) for name in parameters)
    hub.repos.clear()  # a resumed run needs no weights but its own
    finetune(data, output=tmp_path / "run", resume=True, device="cpu")
