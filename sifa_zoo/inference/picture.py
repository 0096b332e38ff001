"""Pictures of predictions: the frames of the clip, and a bar for each class."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.clips import clip_of
from sifa_zoo.evaluation.lettering import fit, font_for
from sifa_zoo.video.reader import open_reader

_FRAME, _GAP, _COLUMNS = 112, 4, 8  # pixels, pixels, frames per row
_BAR, _LABELS = 30, 220  # pixels
_INK, _COLOUR, _FAINT = "#333333", "#1f77b4", "#eeeeee"


def clip_frames(path: str | os.PathLike[str], clip: ClipConfig) -> np.ndarray:
    """The frames `(T, H, W, 3)`, uint8 RGB, of the clip that prediction cuts from the middle of a video."""
    reader = open_reader(path)
    return reader.images(clip_of(reader, clip), clip.short_side)


def draw_prediction(frames: np.ndarray, scores: Sequence[tuple[str, float]]) -> Image.Image:
    """The frames row by row, and below them the scores as bars.

    Args:
        frames: uint8 RGB `(T, H, W, 3)`.
        scores: Class names with scores in [0, 1], as `predict` returns them.

    Raises:
        ValueError: If there are no frames or no scores.
    """
    if not len(frames) or not scores:
        raise ValueError(f"a picture needs frames and scores, got {len(frames)} frames and {len(scores)} scores")
    rows = -(-len(frames) // _COLUMNS)
    pitch = _FRAME + _GAP
    width = _COLUMNS * pitch + _GAP
    top = rows * pitch + 4 * _GAP
    image = Image.new("RGB", (width, top + len(scores) * _BAR + 2 * _GAP), "white")
    for i, frame in enumerate(frames):
        row, column = divmod(i, _COLUMNS)
        image.paste(ImageOps.fit(Image.fromarray(frame), (_FRAME, _FRAME)), (_GAP + column * pitch, _GAP + row * pitch))
    draw = ImageDraw.Draw(image)
    font = font_for((name for name, _ in scores), 15)
    full = width - _LABELS - 80
    for i, (name, score) in enumerate(scores):
        middle = top + i * _BAR + _BAR // 2
        draw.text((_LABELS - 10, middle), fit(name, font, _LABELS - 20), fill=_INK, font=font, anchor="rm")
        draw.rectangle((_LABELS, middle - 9, _LABELS + full, middle + 9), fill=_FAINT)
        draw.rectangle((_LABELS, middle - 9, _LABELS + round(full * score), middle + 9), fill=_COLOUR)
        draw.text((_LABELS + full + 10, middle), f"{100 * score:.1f} %", fill=_INK, font=font, anchor="lm")
    return image
