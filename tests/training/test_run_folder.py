from __future__ import annotations

import json
import math

import pytest

from sifa_zoo.datasets.videos import DataError
from sifa_zoo.training.run_folder import best_by, best_row, compare_with_start


@pytest.mark.parametrize(
    ("column", "rows", "best"),  # rows of figure and loss
    [
        ("val_top1", [(50.0, 1.0), (50.0, 0.5), (40.0, 0.0)], 1),  # a tie
        ("val_top1", [(math.nan, 0.1), (5.0, math.nan), (5.0, 9.0)], 2),  # NaN is never best
        ("val_map", [(20.0, 0.1), (30.0, 0.9)], 1),  # several labels
    ],
)
def test_best_row(column, rows, best):
    rows = [{column: figure, "val_loss": loss} for figure, loss in rows]
    assert best_by(rows[0]) == column
    assert best_row(rows) is rows[best]


def test_a_resumed_run_is_compared_with_its_start(tmp_path, capsys):
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
