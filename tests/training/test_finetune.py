from __future__ import annotations

import csv
import errno
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from interrupts import interrupt_epoch
from PIL import Image
from tiny_videos import write_video, write_videos

import sifa_zoo
from sifa_zoo.config import ClipConfig, TrainConfig
from sifa_zoo.datasets.videos import DataError
from sifa_zoo.evaluation.evaluate import evaluate_run
from sifa_zoo.evaluation.scores import ScoreError
from sifa_zoo.runtime.checkpoint import load_run, read_info
from sifa_zoo.training import finetune as training
from sifa_zoo.training.finetune import TrainingError, best_row, finetune
from sifa_zoo.weights.finding import EMBEDDED

Train = Callable[..., dict[str, Any]]
SameRun = Callable[[Path, Path], None]
FILES = {"best.safetensors", "last.safetensors", "state.pt", "config.json", "log.csv", "curve.png"}


def test_run_folder(run_folder: Path, data: Path) -> None:
    assert {path.name for path in run_folder.iterdir()} == FILES
    config = json.loads((run_folder / "config.json").read_text())
    assert config["data"] == str(data)
    assert config["clip"]["num_frames"] == 4
    assert config["train"]["lr"] == 1e-3
    assert config["versions"].keys() == {"sifa_zoo", "torch", "timm", "python"}
    rows = list(csv.DictReader((run_folder / "log.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[-1]["val_loss"]) < float(rows[0]["val_loss"])
    assert Image.open(run_folder / "curve.png").size == (900, 640)


def test_best_is_the_best_row(run_folder: Path) -> None:
    rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader((run_folder / "log.csv").open())]
    best = best_row(rows)
    info = read_info(run_folder)
    assert info is not None
    assert info.epoch == best["epoch"]
    assert info.metrics == {name: best[name] for name in info.metrics}


def test_same_seed_same_run(run_folder: Path, tmp_path: Path, train: Train, same_run: SameRun) -> None:
    train(tmp_path / "again", epochs=3)
    same_run(tmp_path / "again", run_folder)


def test_workers_do_not_change_the_run(
    run_folder: Path, tmp_path: Path, train: Train, same_run: SameRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))  # fewer threads would add up in another order
    train(tmp_path / "workers", epochs=3, workers=1)
    same_run(tmp_path / "workers", run_folder)


def test_another_seed_another_run(run_folder: Path, tmp_path: Path, train: Train) -> None:
    train(tmp_path / "other", epochs=3, seed=1)
    assert (tmp_path / "other" / "log.csv").read_bytes() != (run_folder / "log.csv").read_bytes()


@pytest.mark.parametrize("stop_after", [0, 1, 2])
def test_resumed_run_equals_an_unbroken_one(
    run_folder: Path,
    tmp_path: Path,
    train: Train,
    same_run: SameRun,
    monkeypatch: pytest.MonkeyPatch,
    stop_after: int,
) -> None:
    output = tmp_path / "run"
    interrupt_epoch(monkeypatch, stop_after)
    with pytest.raises(KeyboardInterrupt):
        train(output, epochs=3)
    monkeypatch.undo()
    train(output, epochs=3, call={"resume": True})
    same_run(output, run_folder)


def test_resume_takes_the_saved_settings(run_folder: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = finetune(data, output=run_folder, resume=True, device="cpu")
    assert "is finished: all 3 epochs are done" in capsys.readouterr().out
    assert best["epoch"] == read_info(run_folder).epoch  # type: ignore[union-attr]


def test_resume_refuses_other_settings(run_folder: Path, train: Train) -> None:
    with pytest.raises(ValueError, match=r"keeps its settings: epochs is 3, not 2, lr is 0\.001, not 1\.0"):
        train(run_folder, lr=1.0, call={"resume": True})


@pytest.mark.parametrize("renamed", [1, 2, 3, 4, 5])  # files, before the kill
def test_a_kill_while_files_are_renamed_loses_nothing(
    renamed: int,
    tmp_path: Path,
    train: Train,
    same_run: SameRun,
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names: list[str] = []

    def replace(source: Path, target: Path, replace: Callable[..., None] = os.replace) -> None:
        if len(names) > renamed:  # config.json is the first
            raise KeyboardInterrupt
        names.append(target.name)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "run", epochs=3)
    assert names[:2] == ["config.json", "state.pt"]
    train(tmp_path / "run", epochs=3, call={"resume": True})
    same_run(tmp_path / "run", run_folder)


def test_resume_names_damaged_files(tmp_path: Path, train: Train, run_folder: Path) -> None:
    run = Path(shutil.copytree(run_folder, tmp_path / "run"))
    (run / "state.pt").write_bytes((run / "state.pt").read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"state\.pt is damaged"):
        train(run, epochs=3, call={"resume": True})
    (run / "state.pt").unlink()
    with pytest.raises(ValueError, match=r"state\.pt is missing"):
        train(run, epochs=3, call={"resume": True})
    (run / "config.json").write_text("{}")
    (run / "last.safetensors").unlink()
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        train(run, epochs=3, call={"resume": True})


def test_an_unknown_optimiser_is_refused(tmp_path: Path, train: Train) -> None:
    with pytest.raises(ValueError, match="got 'adamv'; did you mean .*adam"):
        train(tmp_path / "run", opt="adamv")


def test_a_lone_last_clip_does_not_stop_training(tmp_path: Path, train: Train) -> None:
    train(tmp_path / "run", epochs=1, batch_size=5)  # six videos


def test_resume_needs_a_run(tmp_path: Path, train: Train) -> None:
    with pytest.raises(ValueError, match="there is no run to resume"):
        train(tmp_path, call={"resume": True})


def test_output_with_a_run_is_refused(run_folder: Path, tmp_path: Path, train: Train) -> None:
    with pytest.raises(ValueError, match="holds another run: choose a new --output, or continue"):
        train(run_folder)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        train(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        train(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"model": "sifa_net_nan"}, "sifa_net_nano"),
        ({"model": None}, "the model is missing"),
        ({"clip": {"num_frames": 6}}, "num_frames must be a positive multiple of 4"),
        ({"model": "sifa_transformer_nano", "clip": {"num_frames": 4, "img_size": 33}}, "33"),
        ({"checkpoint": "nowhere"}, "no such run folder or weights file"),
        ({"train": {"opt": "adamv"}}, "adamv"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_written(
    tmp_path: Path, train: Train, call: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(tmp_path / "run", call=call)
    assert not (tmp_path / "run").exists()


def test_one_class_is_refused(tmp_path: Path, train: Train) -> None:
    videos = write_videos(tmp_path / "videos", num_train=1, num_val=1)
    for split in ("train", "val"):
        shutil.rmtree(videos / split / "red")
    with pytest.raises(DataError, match="at least two classes, got 1: blue"):
        train(tmp_path / "run", videos=videos)


def test_training_videos_are_no_validation_videos(tmp_path: Path, train: Train, data: Path) -> None:
    with pytest.raises(DataError, match="no validation videos besides the training videos"):
        train(tmp_path / "run", videos=data / "train")
    train(tmp_path / "run", videos=data / "train", epochs=1, call={"val": data / "val"})


def test_bad_files_are_listed_and_nothing_is_trained(
    tmp_path: Path, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = write_videos(tmp_path / "videos", num_train=2, num_val=1)
    (videos / "train" / "red" / "broken.mp4").write_bytes(b"no video")
    (videos / "val" / "blue" / "empty.mp4").write_bytes(b"")
    with pytest.raises(DataError, match="2 of 8 videos cannot be used"):
        train(tmp_path / "run", videos=videos)
    lines = capsys.readouterr().err.splitlines()
    assert sum("broken.mp4" in line for line in lines) == 1
    assert sum("empty.mp4" in line for line in lines) == 1
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_names_the_videos(tmp_path: Path, train: Train) -> None:
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) in epoch 1, with the videos .*\.mp4, .*\.mp4;"):
        train(tmp_path / "run", lr=1e12, clip_grad=0, opt="sgd", epochs=3)


def test_a_full_disk_keeps_the_last_epoch(tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.fsync, []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 7:  # config.json, the files of epoch 1, the first of epoch 2
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="no space left on the disk while saving"):
        train(tmp_path / "run", epochs=3)
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    assert read_info(tmp_path / "run" / "last.safetensors").epoch == 1  # type: ignore[union-attr]


def test_accumulated_batches_are_one_batch(tmp_path: Path, train: Train) -> None:
    settings = {"epochs": 1, "opt": "sgd", "hflip": False}
    names = {"whole": {"batch_size": 6}, "parts": {"batch_size": 3, "accumulation_steps": 2}}
    frozen = {"model": "sifa_transformer_nano", "clip": ClipConfig(num_frames=4, frame_stride=1, img_size=64)}
    for name, sizes in names.items():
        train(tmp_path / name, call=frozen, **settings, **sizes)
    whole, parts = (load_run(tmp_path / name).state_dict() for name in names)
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, parts[name], rtol=1e-3, atol=1e-5, msg=name)


def test_two_heads_are_trained_together(tmp_path: Path, train: Train) -> None:
    clip = ClipConfig(num_frames=8, frame_stride=1, img_size=32)
    call = {"model_args": {"dual_head": True}, "clip": clip}
    train(tmp_path / "still", epochs=1, lr=0.0, label_smoothing=0, call=call)
    log = next(csv.DictReader((tmp_path / "still" / "log.csv").open()))
    assert float(log["train_loss"]) == pytest.approx(2 * math.log(2), rel=0.1)  # of two heads that know nothing
    train(tmp_path / "run", epochs=1, call=call)
    model = load_run(tmp_path / "run")
    assert model.dual_head
    untrained = load_run(tmp_path / "still")
    assert not torch.equal(model.head.fc.weight, untrained.head.fc.weight)
    assert not torch.equal(model.head_dual.fc.weight, untrained.head_dual.fc.weight)


def test_bf16(tmp_path: Path, train: Train) -> None:
    train(tmp_path / "run", epochs=1, precision="bf16")
    assert read_info(tmp_path / "run").precision == "bf16"  # type: ignore[union-attr]


def test_fine_tuning_from_a_run(run_folder: Path, tmp_path: Path, train: Train, data: Path) -> None:
    call = {"model": None, "clip": None, "checkpoint": run_folder}
    train(tmp_path / "run", epochs=1, lr=0.0, call=call)
    start, end = load_run(run_folder), load_run(tmp_path / "run")
    assert torch.equal(start.get_classifier().weight, end.get_classifier().weight)
    assert read_info(tmp_path / "run").clip == read_info(run_folder).clip  # type: ignore[union-attr]
    assert evaluate_run(tmp_path / "run", data, workers=0, device="cpu")["videos"] == 4


def test_fine_tuning_on_other_classes_renews_the_head(
    run_folder: Path, tmp_path: Path, train: Train, caplog: pytest.LogCaptureFixture
) -> None:
    videos = write_videos(tmp_path / "videos", num_train=2, num_val=1)
    for split in ("train", "val"):
        write_video(videos / split / "green" / "0.mp4", color=(30, 200, 30))
    call = {"model": None, "clip": None, "checkpoint": run_folder}
    train(tmp_path / "run", videos=videos, epochs=1, lr=0.0, batch_size=3, call=call)
    assert caplog.text.count("the head is re-initialised for 3 classes") == 1
    start, end = load_run(run_folder), load_run(tmp_path / "run")
    assert end.pretrained_cfg["label_names"] == ("blue", "green", "red")
    assert torch.equal(start.layer1[0].conv1.weight, end.layer1[0].conv1.weight)


def test_fine_tuning_on_renamed_classes_renews_the_head(
    run_folder: Path, tmp_path: Path, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = write_videos(tmp_path / "videos", num_train=2, num_val=1)
    for split in ("train", "val"):
        (videos / split / "red").rename(videos / split / "crimson")
    call = {"model": None, "clip": None, "checkpoint": run_folder}
    train(tmp_path / "run", videos=videos, epochs=1, lr=0.0, call=call)
    assert capsys.readouterr().out.count("the head is re-initialised for classes of other names") == 1
    start, end = load_run(run_folder), load_run(tmp_path / "run")
    assert not torch.equal(start.get_classifier().weight, end.get_classifier().weight)


def test_a_checkpoint_of_another_model_is_refused(run_folder: Path, tmp_path: Path, train: Train) -> None:
    with pytest.raises(ValueError, match="holds weights of sifa_net_nano, not of sifa_transformer_nano"):
        train(tmp_path / "run", call={"model": "sifa_transformer_nano", "checkpoint": run_folder})


def test_train_config_is_the_default(tmp_path: Path, data: Path) -> None:
    finetune(data, model="sifa_net_nano", output=tmp_path, clip={"num_frames": 4, "img_size": 32}, train={"epochs": 1})
    saved = json.loads((tmp_path / "config.json").read_text())
    assert TrainConfig(**saved["train"]) == TrainConfig(epochs=1)
    assert saved["clip"]["frame_stride"] == ClipConfig().frame_stride


@pytest.mark.parametrize(
    "start",
    [
        {"model": "sifa_net_nano", "pretrained": True},
        {"model": "sifa_net_nano.motion"},
        {"checkpoint": "hf-hub:someone/motion"},
        {"checkpoint": EMBEDDED / "sifa_net_nano.motion.safetensors"},
    ],
    ids=str,
)
def test_starting_from_weights(data, hub, tmp_path, start):
    weights = (EMBEDDED / "sifa_net_nano.motion.safetensors").read_bytes()
    hub.add("someone/motion", {"model.safetensors": weights, "config.json": b'{"architecture": "sifa_net_nano"}'})
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


@pytest.mark.parametrize(
    ("start", "match"),
    [
        ({"model": "sifa_transformer_base.k400"}, "there are no weights"),
        ({"model": "hf-hub:someone/motion"}, "must be an architecture"),
        ({"model": "sifa_net_nano.motion", "checkpoint": "local-dir:somewhere"}, "no such folder"),
        ({"model": "sifa_net_nano.motion", "checkpoint": EMBEDDED / "sifa_net_nano.motion.safetensors"}, "one of them"),
    ],
    ids=str,
)
def test_weights_that_training_cannot_start_from(data, tmp_path, start, match):
    with pytest.raises(ValueError, match=match):
        finetune(data, output=tmp_path / "run", device="cpu", **start)
    assert not (tmp_path / "run").exists()


def test_a_killed_worker_is_reported_in_one_line(tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

    monkeypatch.setattr(training, "train_epoch", killed)
    with pytest.raises(DataError, match="a process that decodes videos was killed, .* --resume with fewer --workers"):
        train(tmp_path / "run")


def test_what_follows_from_the_settings_is_saved(tmp_path: Path, train: Train) -> None:
    train(tmp_path / "run", epochs=1, accumulation_steps=2, lr_batch=8, call={"log": ["tensorboard"]})
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["global_batch"], config["effective_lr"], config["num_processes"]) == (4, 5e-4, 1)
    assert len(config["data_fingerprint"]) == 16
    assert {"git_commit", "device", "protocol", "data_format", "train_videos", "val_videos"} <= config.keys()
    assert config["clip"]["num_frames"] == 4
    assert config["train"]["seed"] == 0
    assert any((tmp_path / "run" / "tensorboard").iterdir())


def test_trackers_are_checked_before_anything_is_written(tmp_path: Path, train: Train) -> None:
    with pytest.raises(ValueError, match="log must be some of tensorboard, wandb, got 'mlflow'"):
        train(tmp_path / "run", call={"log": ["mlflow"]})
    assert not (tmp_path / "run").exists()


def test_the_average_is_validated_and_kept(tmp_path: Path, train: Train, data: Path) -> None:
    best = train(tmp_path / "run", epochs=2, ema_decay=0.99, lr=1e-2)
    result = evaluate_run(tmp_path / "run", data, workers=0, device="cpu")
    assert result["loss"] == pytest.approx(best["val_loss"], rel=1e-5)
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["learner"]
    kept = load_run(tmp_path / "run" / "last.safetensors").state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in state["ema"].items())
    assert not torch.equal(state["model"]["head.fc.weight"], kept["head.fc.weight"])


def test_a_linear_probe(tmp_path: Path, train: Train, run_folder: Path) -> None:
    call = {"model": None, "clip": None, "checkpoint": run_folder}
    train(tmp_path / "run", epochs=1, linear_probe=True, call=call)
    start, end = load_run(run_folder).state_dict(), load_run(tmp_path / "run").state_dict()
    assert {name for name in start if not torch.equal(start[name], end[name])} == {"head.fc.weight", "head.fc.bias"}


@pytest.mark.parametrize(
    ("settings", "saved"), [({}, [3]), ({"save_every": 2}, [2, 3]), ({"save_minutes": 1e-9}, [1, 2, 3, 3])]
)
def test_when_a_run_is_saved(
    tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], saved: list[int]
) -> None:
    steps = []
    real = training.save_state

    def save(run: Path, learner: Any, position: Any) -> None:
        steps.append(position.step)
        real(run, learner, position)

    monkeypatch.setattr(training, "save_state", save)
    train(tmp_path / "run", epochs=1, **settings)  # three updates
    assert steps == saved


def test_how_often_a_run_is_saved_may_change(tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_epoch(monkeypatch, 0)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run")
    monkeypatch.undo()
    train(tmp_path / "run", save_every=1, save_minutes=5, call={"resume": "auto"})
    assert [row["epoch"] for row in csv.DictReader((tmp_path / "run" / "log.csv").open())] == ["1", "2"]


def test_scores_that_are_not_finite_are_not_saved(tmp_path: Path, train: Train) -> None:
    with pytest.raises(
        TrainingError, match=r"validation after epoch 1: the scores of sifa_net_nano are not finite for"
    ):
        train(tmp_path / "run", lr=1e12, batch_size=6, epochs=1)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json"}


def test_the_epoch_before_spoilt_weights_stays(
    tmp_path: Path, train: Train, same_run: SameRun, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    evaluate, calls = training.evaluate, []

    def spoil_second(*args: Any, **options: Any) -> dict[str, Any]:
        calls.append(0)
        if len(calls) == 2:
            raise ScoreError("the scores are not finite")
        return evaluate(*args, **options)

    monkeypatch.setattr(training, "evaluate", spoil_second)
    with pytest.raises(TrainingError, match="validation after epoch 2"):
        train(run, epochs=3)
    monkeypatch.undo()
    train(run, epochs=3, call={"resume": True})
    same_run(run, run_folder)
