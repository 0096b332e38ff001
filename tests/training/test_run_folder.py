from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from sifa_zoo.datasets.videos import DataError
from sifa_zoo.training.run_folder import best_by, best_row, compare_with_start


def test_best_row_breaks_ties_by_loss() -> None:
    rows = [{"val_top1": 50.0, "val_loss": 1.0}, {"val_top1": 50.0, "val_loss": 0.5}, {"val_top1": 40.0, "val_loss": 0}]
    assert best_row(rows) is rows[1]


def test_best_row_is_never_one_without_a_figure() -> None:
    nan = math.nan
    rows = [{"val_top1": nan, "val_loss": 0.1}, {"val_top1": 5.0, "val_loss": nan}, {"val_top1": 5.0, "val_loss": 9.0}]
    assert best_row(rows) is rows[2]


def test_epochs_of_several_labels_are_ranked_by_map() -> None:
    rows = [{"val_map": 20.0, "val_loss": 0.1}, {"val_map": 30.0, "val_loss": 0.9}]
    assert best_by(rows[0]) == "val_map"
    assert best_row(rows) is rows[1]


def test_a_resumed_run_is_compared_with_its_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"num_processes": 2, "train_videos": 8, "val_videos": 4, "data_fingerprint": "aa"}
    left_out = {"a.mp4": "a.mp4: no video"}
    (tmp_path / "config.json").write_text(json.dumps({**facts, "left_out": left_out}))
    assert compare_with_start(tmp_path, facts) == left_out
    assert capsys.readouterr().err == ""
    compare_with_start(tmp_path, {**facts, "data_fingerprint": "bb"})
    assert "warning: the videos are not those that the run" in capsys.readouterr().err
    with pytest.raises(ValueError, match="has 2 processes, not 1: resume it with 2"):
        compare_with_start(tmp_path, {**facts, "num_processes": 1})
    with pytest.raises(DataError, match=r"has 8 training videos, not 7: bring back .* or start a new --output"):
        compare_with_start(tmp_path, {**facts, "train_videos": 7})
    with pytest.raises(DataError, match=r"has 4 validation videos, not 3: bring back .* or start a new --output"):
        compare_with_start(tmp_path, {**facts, "val_videos": 3})
