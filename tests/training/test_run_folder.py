from __future__ import annotations

import math

from sifa_zoo.training.run_folder import best_by, best_row


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
