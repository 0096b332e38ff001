"""What a run writes, what changes it, and what it refuses."""

from __future__ import annotations

import csv
import json
import math
import shutil

import pytest
import torch
from PIL import Image
from tiny_videos import write_videos

from sifa_zoo.config import ClipConfig, TrainConfig
from sifa_zoo.datasets.videos import DataError
from sifa_zoo.evaluation.evaluate import evaluate_run
from sifa_zoo.runtime.checkpoint import load_run, read_info
from sifa_zoo.runtime.devices import usual_precision, usual_workers
from sifa_zoo.training import finetune as module
from sifa_zoo.training.finetune import finetune
from sifa_zoo.training.run_folder import best_row
from sifa_zoo.training.update import TrainingError
from sifa_zoo.weights.finding import EMBEDDED

FILES = {"best.safetensors", "last.safetensors", "state.pt", "config.json", "log.csv", "curve.png"}
MOTION = EMBEDDED / "sifa_net_nano.motion.safetensors"


def log(run):
    return list(csv.DictReader((run / "log.csv").open()))


def config(run):
    return json.loads((run / "config.json").read_text())


def test_run_folder(run_folder, data):
    assert {path.name for path in run_folder.iterdir()} == FILES
    saved = config(run_folder)
    assert saved["data"] == str(data)
    assert saved["clip"]["num_frames"] == 4
    assert saved["train"]["lr"] == 1e-3
    assert saved["versions"].keys() == {"sifa_zoo", "torch", "timm", "python"}
    rows = log(run_folder)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[-1]["val_loss"]) < float(rows[0]["val_loss"])
    assert Image.open(run_folder / "curve.png").size == (900, 640)


def test_best_is_the_best_row(run_folder):
    best = best_row([{name: float(value) for name, value in row.items()} for row in log(run_folder)])
    info = read_info(run_folder)
    assert info is not None
    assert info.epoch == best["epoch"]
    assert info.metrics == {name: best[name] for name in info.metrics}


@pytest.mark.parametrize("workers", [0, 1])
def test_same_seed_same_run(run_folder, tmp_path, train, same_run, monkeypatch, workers):
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))  # fewer threads would add up in another order
    train(tmp_path / "again", epochs=3, workers=workers)
    same_run(tmp_path / "again", run_folder)


def test_another_seed_another_run(run_folder, tmp_path, train):
    train(tmp_path / "other", epochs=3, seed=1)
    assert (tmp_path / "other" / "log.csv").read_bytes() != (run_folder / "log.csv").read_bytes()


def test_a_lone_last_clip_does_not_stop_training(tmp_path, train):
    train(tmp_path / "run", epochs=1, batch_size=5)  # six videos


def test_train_config_is_the_default(tmp_path, data):
    finetune(data, model="sifa_net_nano", output=tmp_path, clip={"num_frames": 4, "img_size": 32}, train={"epochs": 1})
    settled = {"precision": usual_precision("cpu"), "workers": usual_workers("cpu")}
    assert TrainConfig(**config(tmp_path)["train"]) == TrainConfig(epochs=1, **settled)
    assert config(tmp_path)["clip"]["frame_stride"] == ClipConfig().frame_stride


def test_what_follows_from_the_settings_is_saved(tmp_path, train):
    train(tmp_path / "run", epochs=1, accumulation_steps=2, lr_batch=8, call={"log": ["tensorboard"]})
    saved = config(tmp_path / "run")
    assert (saved["global_batch"], saved["effective_lr"], saved["num_processes"]) == (4, 5e-4, 1)
    assert len(saved["data_fingerprint"]) == 16
    assert {"git_commit", "device", "protocol", "data_format", "train_videos", "val_videos"} <= saved.keys()
    assert saved["clip"]["num_frames"] == 4
    assert saved["train"]["seed"] == 0
    assert any((tmp_path / "run" / "tensorboard").iterdir())


def test_accumulated_batches_are_one_batch(tmp_path, train):
    settings = {"epochs": 1, "opt": "sgd", "hflip": False}
    names = {"whole": {"batch_size": 6}, "parts": {"batch_size": 3, "accumulation_steps": 2}}
    frozen = {"model": "sifa_transformer_nano", "clip": ClipConfig(num_frames=4, frame_stride=1, img_size=64)}
    for name, sizes in names.items():
        train(tmp_path / name, call=frozen, **settings, **sizes)
    whole, parts = (load_run(tmp_path / name).state_dict() for name in names)
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, parts[name], rtol=1e-3, atol=1e-5, msg=name)


def test_two_heads_are_trained_together(tmp_path, train):
    call = {"model_args": {"dual_head": True}, "clip": ClipConfig(num_frames=8, frame_stride=1, img_size=32)}
    train(tmp_path / "still", epochs=1, lr=0.0, label_smoothing=0, call=call)
    loss = float(log(tmp_path / "still")[0]["train_loss"])
    assert loss == pytest.approx(2 * math.log(2), rel=0.1)  # of two heads that know nothing
    train(tmp_path / "run", epochs=1, call=call)
    model = load_run(tmp_path / "run")
    assert model.dual_head
    untrained = load_run(tmp_path / "still")
    assert not torch.equal(model.head.fc.weight, untrained.head.fc.weight)
    assert not torch.equal(model.head_dual.fc.weight, untrained.head_dual.fc.weight)


def test_bf16(tmp_path, train):
    train(tmp_path / "run", epochs=1, precision="bf16")
    assert read_info(tmp_path / "run").precision == "bf16"


def test_the_average_is_validated_and_kept(tmp_path, train, data):
    best = train(tmp_path / "run", epochs=2, ema_decay=0.99, lr=1e-2)
    result = evaluate_run(tmp_path / "run", data, workers=0, device="cpu")
    assert result["loss"] == pytest.approx(best["val_loss"], rel=1e-5)
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["learner"]
    kept = load_run(tmp_path / "run" / "last.safetensors").state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in state["ema"].items())
    assert not torch.equal(state["model"]["head.fc.weight"], kept["head.fc.weight"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"model": "sifa_net_nan"}, "sifa_net_nano"),
        ({"model": None}, "the model is missing"),
        ({"model": "sifa_transformer_base.k400"}, "there are no weights"),
        ({"model": "hf-hub:someone/motion"}, "must be an architecture"),
        ({"checkpoint": "nowhere"}, "no such run folder or weights file"),
        ({"model": "sifa_net_nano.motion", "checkpoint": "local-dir:somewhere"}, "no such folder"),
        ({"model": "sifa_net_nano.motion", "checkpoint": MOTION}, "one of them"),
        (
            {"model": "sifa_transformer_nano", "checkpoint": MOTION},
            "holds weights of sifa_net_nano, not of sifa_transformer_nano",
        ),
        ({"model_args": {"depth": 2}}, "depth"),
        ({"clip": {"num_frames": 6}}, "num_frames must be a positive multiple of 4"),
        ({"model": "sifa_transformer_nano", "clip": {"num_frames": 4, "img_size": 33}}, "33"),
        ({"train": {"opt": "adamv"}}, "got 'adamv'; did you mean .*adam"),
        ({"train": {"freeze": "no such name"}}, "freeze must match some parameters"),
        ({"train": {"fsdp": True}}, "fsdp needs several processes: start them with torchrun"),
        ({"train": {"sync_bn": True}}, "sync_bn needs GPUs"),
        ({"log": ["mlflow"]}, "log must be some of tensorboard, wandb, got 'mlflow'"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_refused_before_anything_is_written(tmp_path, train, monkeypatch, call, message):
    monkeypatch.setattr(module, "check_files", lambda *_, **__: pytest.fail("the slow check of files comes last"))
    with pytest.raises((ValueError, TypeError), match=message):
        train(tmp_path / "run", call=call)
    assert not (tmp_path / "run").exists()


def test_output_with_a_run_is_refused(run_folder, tmp_path, train):
    with pytest.raises(ValueError, match="holds another run: choose a new --output, or continue"):
        train(run_folder)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        train(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        train(tmp_path / "notes.txt")


def test_one_class_is_refused(tmp_path, train):
    videos = write_videos(tmp_path / "videos", num_train=1, num_val=1)
    for split in ("train", "val"):
        shutil.rmtree(videos / split / "red")
    with pytest.raises(DataError, match="at least two classes, got 1: blue"):
        train(tmp_path / "run", videos=videos)


def test_training_videos_are_no_validation_videos(tmp_path, train, data):
    with pytest.raises(DataError, match="no validation videos besides the training videos"):
        train(tmp_path / "run", videos=data / "train")
    train(tmp_path / "run", videos=data / "train", epochs=1, call={"val": data / "val"})


def test_bad_files_are_listed_and_nothing_is_trained(tmp_path, train, capsys):
    videos = write_videos(tmp_path / "videos", num_train=2, num_val=1)
    (videos / "train" / "red" / "broken.mp4").write_bytes(b"no video")
    (videos / "val" / "blue" / "empty.mp4").write_bytes(b"")
    with pytest.raises(DataError, match="2 of 8 videos cannot be used"):
        train(tmp_path / "run", videos=videos)
    lines = capsys.readouterr().err.splitlines()
    assert sum("broken.mp4" in line for line in lines) == 1
    assert sum("empty.mp4" in line for line in lines) == 1
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_names_the_videos(tmp_path, train):
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) in epoch 1, with the videos .*\.mp4, .*\.mp4;"):
        train(tmp_path / "run", lr=1e12, clip_grad=0, opt="sgd", epochs=3)


def test_a_killed_worker_is_reported_in_one_line(tmp_path, train, monkeypatch):
    def killed(*_, **__):
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

    monkeypatch.setattr(module, "train_epoch", killed)
    with pytest.raises(DataError, match="a process that decodes videos was killed, .* --resume with fewer --workers"):
        train(tmp_path / "run")
