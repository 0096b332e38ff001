"""What a resumed run finds, and when a run is saved; tests/training/test_survival.py kills processes."""

from __future__ import annotations

import csv
import errno
import os
import shutil

import pytest
from interrupts import interrupt_epoch

from sifa_zoo.evaluation.scores import ScoreError
from sifa_zoo.runtime.checkpoint import read_info
from sifa_zoo.training import finetune as module
from sifa_zoo.training.finetune import finetune
from sifa_zoo.training.update import TrainingError

RESUME = {"resume": True}
FILES = {"best.safetensors", "last.safetensors", "state.pt", "config.json", "log.csv", "curve.png"}


@pytest.mark.parametrize("stop_after", [0, 1, 2])
def test_resumed_run_equals_an_unbroken_one(run_folder, tmp_path, train, same_run, monkeypatch, stop_after):
    output = tmp_path / "run"
    interrupt_epoch(monkeypatch, stop_after)
    with pytest.raises(KeyboardInterrupt):
        train(output, epochs=3)
    monkeypatch.undo()
    train(output, epochs=3, call=RESUME)
    same_run(output, run_folder)


def test_resume_takes_the_saved_settings(run_folder, data, capsys):
    best = finetune(data, output=run_folder, resume=True, device="cpu")
    assert "is finished: all 3 epochs are done" in capsys.readouterr().out
    assert best["epoch"] == read_info(run_folder).epoch


def test_resume_refuses_other_settings(run_folder, train):
    with pytest.raises(ValueError, match=r"keeps its settings: epochs is 3, not 2, lr is 0\.001, not 1\.0"):
        train(run_folder, lr=1.0, call=RESUME)


def test_resume_needs_a_run(tmp_path, train):
    with pytest.raises(ValueError, match="there is no run to resume"):
        train(tmp_path, call=RESUME)


def test_resume_names_damaged_files(tmp_path, train, run_folder):
    run = shutil.copytree(run_folder, tmp_path / "run")
    (run / "state.pt").write_bytes((run / "state.pt").read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"state\.pt is damaged"):
        train(run, epochs=3, call=RESUME)
    (run / "state.pt").unlink()
    with pytest.raises(ValueError, match=r"state\.pt is missing"):
        train(run, epochs=3, call=RESUME)
    (run / "config.json").write_text("{}")
    (run / "last.safetensors").unlink()
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        train(run, epochs=3, call=RESUME)


@pytest.mark.parametrize("renamed", [1, 2, 3, 4, 5])  # files, before the kill
def test_a_kill_while_files_are_renamed_loses_nothing(renamed, tmp_path, train, same_run, run_folder, monkeypatch):
    names = []

    def replace(source, target, replace=os.replace):
        if len(names) > renamed:  # config.json is the first
            raise KeyboardInterrupt
        names.append(target.name)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "run", epochs=3)
    assert names[:2] == ["config.json", "state.pt"]
    train(tmp_path / "run", epochs=3, call=RESUME)
    same_run(tmp_path / "run", run_folder)


def test_a_kill_in_the_last_epoch_is_made_good(tmp_path, train, same_run, run_folder, capsys):
    run = shutil.copytree(run_folder, tmp_path / "run")
    (run / "last.safetensors").unlink()
    train(run, epochs=3, call=RESUME)
    assert "is finished: all 3 epochs are done" in capsys.readouterr().out
    same_run(run, run_folder)


def test_a_full_disk_keeps_the_last_epoch(tmp_path, train, monkeypatch):
    real, calls = os.fsync, []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) > 7:  # config.json, the files of epoch 1, the first of epoch 2
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="no space left on the disk while saving"):
        train(tmp_path / "run", epochs=3)
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    assert read_info(tmp_path / "run" / "last.safetensors").epoch == 1


@pytest.mark.parametrize(
    ("settings", "saved"), [({}, [3]), ({"save_every": 2}, [2, 3]), ({"save_minutes": 1e-9}, [1, 2, 3, 3])]
)
def test_when_a_run_is_saved(tmp_path, train, monkeypatch, settings, saved):
    steps = []
    real = module.save_state

    def save(run, learner, position):
        steps.append(position.step)
        real(run, learner, position)

    monkeypatch.setattr(module, "save_state", save)
    train(tmp_path / "run", epochs=1, **settings)  # three updates
    assert steps == saved


def test_how_often_a_run_is_saved_may_change(tmp_path, train, monkeypatch):
    interrupt_epoch(monkeypatch, 0)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run")
    monkeypatch.undo()
    train(tmp_path / "run", save_every=1, save_minutes=5, call={"resume": "auto"})
    assert [row["epoch"] for row in csv.DictReader((tmp_path / "run" / "log.csv").open())] == ["1", "2"]


def test_scores_that_are_not_finite_are_not_saved(tmp_path, train):
    message = r"validation after epoch 1: the scores of sifa_net_nano are not finite for"
    with pytest.raises(TrainingError, match=message):
        train(tmp_path / "run", lr=1e12, batch_size=6, epochs=1)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json"}


def test_the_epoch_before_spoilt_weights_stays(tmp_path, train, same_run, run_folder, monkeypatch):
    run = tmp_path / "run"
    evaluate, calls = module.evaluate, []

    def spoil_second(*args, **options):
        calls.append(0)
        if len(calls) == 2:
            raise ScoreError("the scores are not finite")
        return evaluate(*args, **options)

    monkeypatch.setattr(module, "evaluate", spoil_second)
    with pytest.raises(TrainingError, match="validation after epoch 2"):
        train(run, epochs=3)
    monkeypatch.undo()
    train(run, epochs=3, call=RESUME)
    same_run(run, run_folder)
