"""Fine-tuning with the settings that change clips, labels, rates and the order of videos."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from interrupts import interrupt_epoch
from tiny_videos import write_videos

from sifa_zoo.config import TrainConfig
from sifa_zoo.datasets.videos import VideoList
from sifa_zoo.runtime.checkpoint import load_run, read_info
from sifa_zoo.training import finetune as training
from sifa_zoo.training.recipes import recipes


def test_augmented_runs_are_repeatable(tmp_path, train, same_run, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    settings = {"rand_augment": 1, "color_jitter_prob": 0.5, "mixup_alpha": 0.4, "cutmix_alpha": 1.0, "balance": 0.5}
    settings |= {"repeats": 2, "lr_batch": 4, "min_lr": 1e-5, "warmup_lr": 1e-4, "warmup_epochs": 1, "num_crops": 3}
    for name, workers in (("first", 0), ("again", 1)):
        train(tmp_path / name, epochs=2, workers=workers, **settings)
    same_run(tmp_path / "first", tmp_path / "again")
    info = read_info(tmp_path / "first")
    assert info is not None
    assert info.num_crops == 3
    assert load_run(tmp_path / "first").pretrained_cfg["num_crops"] == 3


def test_resumed_augmented_run_equals_an_unbroken_one(tmp_path, train, same_run, monkeypatch):
    settings = {"epochs": 3, "mixup_alpha": 0.4, "repeats": 2, "balance": 1.0}
    train(tmp_path / "whole", **settings)
    interrupt_epoch(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", **settings)
    monkeypatch.undo()
    train(tmp_path / "run", **settings, call={"resume": True})
    same_run(tmp_path / "run", tmp_path / "whole")


def test_what_is_in_effect_is_printed(tmp_path, train, capsys):
    videos = write_videos(tmp_path / "videos", num_train=1, num_val=1)
    for split in ("train", "val"):
        (videos / split / "red").rename(videos / split / "red left")
    train(tmp_path / "run", videos=videos, epochs=1, lr=0.4, lr_batch=8, accumulation_steps=2)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert {"global_batch 4", "effective_lr 0.2", "lr 0.4"} <= set(lines)
    assert sum(line.startswith("never mirrored") and line.endswith(": red left") for line in lines) == 1
    train(tmp_path / "still", videos=videos, epochs=1, hflip=False)
    assert "mirror" not in capsys.readouterr().out


def test_loss_weight_scales_the_step(tmp_path, train):
    settings = {"epochs": 1, "opt": "momentum", "clip_grad": 0, "weight_decay": 0.0, "batch_size": 3}
    train(tmp_path / "weight", lr=1e-3, loss_weight=4.0, **settings)
    train(tmp_path / "rate", lr=4e-3, **settings)
    ours, theirs = (load_run(tmp_path / name).state_dict() for name in ("weight", "rate"))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-6, msg=name)


def test_recipe(tmp_path, train):
    small = {"epochs": 1, "batch_size": 2, "workers": 0, "num_clips": 1}
    call = {"train": small, "clip": {"img_size": 32}, "recipe": "ssv1"}
    train(tmp_path / "run", call=call)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["recipe"] == "ssv1"
    assert TrainConfig(**config["train"]) == dataclasses.replace(recipes()["ssv1"].train, **small, precision="fp32")
    assert (config["clip"]["img_size"], config["clip"]["sampling"]) == (32, "uniform")
    train(tmp_path / "run", call={**call, "resume": True, "train": {}, "clip": {}})
    with pytest.raises(ValueError, match="keeps its settings: recipe is ssv1, not small"):
        train(tmp_path / "run", call={"resume": True, "train": {}, "clip": {}, "recipe": "small"})


def test_several_labels_per_video(tmp_path, train, monkeypatch):
    """Evaluation is not what is tested here: its figure is made up."""
    scores = iter([{"loss": 1.0, "map": 80.0}, {"loss": 0.5, "map": 20.0}])

    def several(config: Any, *, run: Path) -> tuple[VideoList, VideoList]:
        lists = real(config, run=run)
        return tuple(VideoList(v.paths, np.eye(2, dtype=bool)[v.labels], v.class_names) for v in lists)  # type: ignore[return-value]

    real = training.read_data
    monkeypatch.setattr(training, "read_data", several)
    counts = {"videos": 4, "expected": 4, "failed": ()}
    monkeypatch.setattr(training, "evaluate", lambda *_, **__: {**next(scores), **counts})
    best = train(tmp_path / "run", epochs=2, mixup_alpha=0.4, repeats=2)
    assert (best["epoch"], best["val_map"]) == (1, 80.0)
    assert best["train_loss"] == pytest.approx(math.log(2), rel=0.2)  # of questions answered by yes or no
    info = read_info(tmp_path / "run")
    assert info is not None
    assert info.metrics == {"val_loss": 1.0, "val_map": 80.0, "val_videos": 4, "val_expected": 4}
    with pytest.raises(ValueError, match="balance needs one class per video"):
        train(tmp_path / "balanced", balance=0.5)
    assert not (tmp_path / "balanced").exists()
