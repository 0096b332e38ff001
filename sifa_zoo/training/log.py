"""The log of a run: a table (log.csv) and its picture (curve.png), both made from one row per epoch."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from PIL import Image, ImageDraw, ImageFont

EpochRow: TypeAlias = dict[str, Any]  # column -> value
Box: TypeAlias = tuple[float, float, float, float]

_SIZE = (900, 640)
_SMOOTH = 2  # drawn at twice the size and reduced: Pillow's lines are not antialiased
_INK, _FAINT = "#333333", "#dddddd"
_COLOURS = ("#1f77b4", "#d95f02")


def draw_curve(rows: Sequence[EpochRow]) -> bytes:
    """Losses and validation accuracy over epochs, as PNG."""
    image = Image.new("RGB", (_SIZE[0] * _SMOOTH, _SIZE[1] * _SMOOTH), "white")
    draw = ImageDraw.Draw(image)
    width, height = image.size
    left, right = 70 * _SMOOTH, width - 150 * _SMOOTH
    middle, margin = height / 2, 35 * _SMOOTH
    losses = {"train loss": "train_loss", "val loss": "val_loss"}
    accuracies = {"val top-1 (%)": "val_top1", "val top-5 (%)": "val_top5"}
    if "val_map" in rows[0]:
        accuracies = {"val mAP (%)": "val_map"}
    _panel(draw, (left, margin, right, middle - margin / 2), rows, curves=losses)
    _panel(draw, (left, middle + margin / 2, right, height - margin), rows, curves=accuracies, top=100.0)
    buffer = io.BytesIO()
    image.resize(_SIZE, Image.Resampling.LANCZOS).save(buffer, "PNG")
    return buffer.getvalue()


def ticks(low: float, high: float, *, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten) in `low..high`."""
    raw = max(high - low, 1e-6) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def _panel(
    draw: ImageDraw.ImageDraw,
    box: Box,
    rows: Sequence[EpochRow],
    *,
    curves: Mapping[str, str],
    top: float | None = None,
) -> None:
    """Axes from 0, a grid, and a line with a legend entry for each of `curves` (label to column)."""
    x0, y0, x1, y1 = box
    font = ImageFont.load_default(13 * _SMOOTH)
    epochs = [int(row["epoch"]) for row in rows]
    high = top or max(1e-3, *(row[column] for row in rows for column in curves.values())) * 1.05
    span = max(epochs[-1] - epochs[0], 1)

    def place(epoch: float, value: float) -> tuple[float, float]:
        return x0 + (x1 - x0) * (epoch - epochs[0]) / span, y1 - (y1 - y0) * min(value / high, 1.0)

    for value in ticks(0, high):
        y = place(0, value)[1]
        draw.line([(x0, y), (x1, y)], fill=_FAINT, width=_SMOOTH)
        draw.text((x0 - 8 * _SMOOTH, y), f"{value:g}", fill=_INK, font=font, anchor="rm")
    for epoch in sorted({round(tick) for tick in ticks(epochs[0], epochs[0] + span, count=8)}):
        x = place(epoch, 0)[0]
        draw.line([(x, y1), (x, y1 + 4 * _SMOOTH)], fill=_INK, width=_SMOOTH)
        draw.text((x, y1 + 6 * _SMOOTH), str(epoch), fill=_INK, font=font, anchor="mt")
    draw.line([(x0, y0), (x0, y1), (x1, y1)], fill=_INK, width=_SMOOTH)
    draw.text((x1 + 12 * _SMOOTH, y1 + 6 * _SMOOTH), "epoch", fill=_INK, font=font, anchor="lt")
    for i, (label, column) in enumerate(curves.items()):
        points = [place(epoch, row[column]) for epoch, row in zip(epochs, rows, strict=True)]
        draw.line(points, fill=_COLOURS[i], width=2 * _SMOOTH, joint="curve")
        for point in points if len(points) <= 40 else points[-1:]:
            draw.circle(point, 3 * _SMOOTH, fill=_COLOURS[i])
        y = y0 + (12 + 22 * i) * _SMOOTH
        draw.line([(x1 + 12 * _SMOOTH, y), (x1 + 34 * _SMOOTH, y)], fill=_COLOURS[i], width=3 * _SMOOTH)
        draw.text((x1 + 42 * _SMOOTH, y), label, fill=_INK, font=font, anchor="lm")
