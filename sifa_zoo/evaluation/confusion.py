"""The confusion matrix as a table and as a picture: a row per true class, a column per predicted one."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sifa_zoo.evaluation.lettering import Font, fit, font_for

_NAMED = 40  # with more classes there is no room for names
_COUNTED = 20  # with more there is no room for counts
_NAME_WIDTH = 180
_TICKS = 10  # at most so many numbers along an axis without names
_GAP = 10
_TITLE = "true class in rows, predicted in columns"
_INK, _PAPER, _GRID = "#333333", "#ffffff", "#e3e8ee"
_LIGHT, _DARK = np.array([247, 250, 253]), np.array([8, 64, 129])


def confusion_csv(matrix: np.ndarray, class_names: Sequence[str]) -> bytes:
    """Counts `(C, C)` as CSV, with the names of the classes in the first row and column."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true / predicted", *class_names])
    writer.writerows([name, *row] for name, row in zip(class_names, matrix.tolist(), strict=True))
    return text.getvalue().encode()


def draw_confusion(matrix: np.ndarray, class_names: Sequence[str]) -> bytes:
    """Counts `(C, C)` as PNG; the larger a cell's share of its row, the true class, the darker it is.

    Up to 40 classes are labelled by name, and up to 20 have the counts in the cells. With more than 40, the axes are
    numbered from 0, and cells are shaded by the square root of the share, so that rare confusions show.
    """
    count = len(matrix)
    cell = _cell_size(count)
    names = count <= _NAMED
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    weights = shares[..., None] if names else np.sqrt(shares[..., None])
    colours = (_LIGHT + weights * (_DARK - _LIGHT)).round().astype(np.uint8)
    cells = Image.fromarray(colours).resize((cell * count, cell * count), Image.Resampling.NEAREST)
    font = font_for(class_names if names else (), 13)
    labels = [(i, str(i)) for i in range(0, count, _step(count))]
    if names:
        labels = [(i, fit(name, font, _NAME_WIDTH, instead=str(i))) for i, name in enumerate(class_names)]
    margin = max(60, *(round(font.getlength(label)) + 2 * _GAP for _, label in labels))
    title = 26
    width = max(margin + cells.width + 30, round(font.getlength(_TITLE)) + 2 * _GAP)
    image = Image.new("RGB", (width, margin + cells.height + title + _GAP), _PAPER)
    image.paste(cells, (margin, title))
    draw = ImageDraw.Draw(image)
    if cell >= 12:
        _draw_grid(draw, (margin, title), count=count, cell=cell)
    if count <= _COUNTED:
        _draw_counts(draw, matrix, shares, at=(margin, title), cell=cell)
    for place, label in labels:
        middle = round((place + 0.5) * cell)
        draw.text((margin - _GAP, title + middle), label, _INK, font, anchor="rm")
    bottom = title + cells.height
    _paste_columns(image, labels, font=font, left=margin, top=bottom + 6, cell=cell, upright=not names)
    draw.text((_GAP, title - 9), _TITLE, _INK, font, anchor="ls")
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _cell_size(count: int) -> int:
    """Side of a cell in pixels: large for few classes, and at least 2 for many."""
    return 44 if count <= 10 else 32 if count <= _COUNTED else 20 if count <= _NAMED else max(2, 800 // count)


def _step(count: int) -> int:
    """A round distance between the numbers along an axis."""
    return next(step for step in (5, 10, 20, 50, 100, 200, 500, 1000, count) if count / step <= _TICKS)


def _draw_grid(draw: ImageDraw.ImageDraw, at: tuple[int, int], *, count: int, cell: int) -> None:
    (left, top), size = at, count * cell
    for i in range(count + 1):
        draw.line((left + i * cell, top, left + i * cell, top + size), _GRID)
        draw.line((left, top + i * cell, left + size, top + i * cell), _GRID)


def _draw_counts(
    draw: ImageDraw.ImageDraw, matrix: np.ndarray, shares: np.ndarray, *, at: tuple[int, int], cell: int
) -> None:
    for row, column in zip(*matrix.nonzero(), strict=True):
        text = str(matrix[row, column])
        font = ImageFont.load_default(14 if len(text) <= cell // 10 else 9)
        middle = (at[0] + (column + 0.5) * cell, at[1] + (row + 0.5) * cell)
        draw.text(middle, text, _PAPER if shares[row, column] > 0.5 else _INK, font, anchor="mm")


def _paste_columns(
    image: Image.Image,
    labels: Sequence[tuple[int, str]],
    *,
    font: Font,
    left: int,
    top: int,
    cell: int,
    upright: bool,
) -> None:
    """Labels below the columns, rotated by 90 degrees unless `upright`."""
    for place, text in labels:
        box = Image.new("RGB", (round(font.getlength(text)) + 2, 18), _PAPER)
        ImageDraw.Draw(box).text((1, 9), text, _INK, font, anchor="lm")
        box = box if upright else box.rotate(90, expand=True)
        image.paste(box, (left + round((place + 0.5) * cell) - box.width // 2, top))
