from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from PIL import Image

from sifa_zoo.evaluation.confusion import confusion_csv, draw_confusion


def _names(count: int) -> list[str]:
    return [f"class number {i}, a name too long to fit" for i in range(count)]


@pytest.mark.parametrize("count", [2, 10, 20, 40, 41, 174, 400])
def test_the_picture_has_a_cell_per_pair(count: int) -> None:
    matrix = np.diag(np.arange(1, count + 1)).astype(np.int64)
    content = draw_confusion(matrix, _names(count))
    image = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    dark = (image == (8, 64, 129)).all(-1)
    assert dark.any(0).sum() >= 2 * count  # the diagonal, at least two pixels per class
    assert image.shape[0] < 1100
    assert image.shape[1] < 1100
    assert len(content) < 100_000


def test_a_cell_is_as_dark_as_its_share_of_the_row() -> None:
    image = Image.open(io.BytesIO(draw_confusion(np.array([[30, 10], [0, 0]]), ["a", "b"]))).convert("RGB")
    colours = np.asarray(image)[:, :, 0]
    left, top = np.argwhere(colours == 68).min(0)[::-1]  # three quarters: 247 + 0.75 * (8 - 247)
    assert colours[top + 4, left + 4 + 44] == 187  # one quarter
    assert colours[top + 4 + 44, left + 4] == 247  # nothing


def test_the_table_holds_the_counts() -> None:
    names = ['a, "b"', "c\nd"]
    rows = list(csv.reader(io.StringIO(confusion_csv(np.array([[3, 1], [0, 2]]), names).decode())))
    assert rows == [["true / predicted", *names], [names[0], "3", "1"], [names[1], "0", "2"]]
