from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from sifa_zoo.training.log import draw_curve, ticks

BLUE, ORANGE = (31, 119, 180), (217, 95, 2)  # of the first and the second curve of a panel


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 2.2, [0, 0.5, 1, 1.5, 2]),
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (0, 0.01, [0, 0.002, 0.004, 0.006, 0.008, 0.01]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected


@pytest.mark.parametrize("epochs", [1, 3, 50])
@pytest.mark.parametrize(("accuracies", "lower"), [(("val_top1", "val_top5"), {BLUE, ORANGE}), (("val_map",), {BLUE})])
def test_a_curve_for_each_column(epochs: int, accuracies: tuple[str, ...], lower: set[tuple[int, int, int]]) -> None:
    columns = {"train_loss": 1.0, "val_loss": 2.0, **dict(zip(accuracies, (40.0, 80.0), strict=False))}
    content = draw_curve([{"epoch": epoch, **columns} for epoch in range(1, epochs + 1)])
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    assert pixels.shape == (640, 900, 3)
    for half, expected in ((pixels[:320, :750], {BLUE, ORANGE}), (pixels[320:, :750], lower)):  # without the legend
        assert {colour for colour in (BLUE, ORANGE) if (abs(half - colour) < 40).all(-1).any()} == expected
