"""Makes decoded frames upright, RGB and of the size asked for, and gathers them in one array."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

# Scaled in their own format and then made RGB, in a third of the time that doing both at once takes.
_SCALED_FIRST = ("yuv420p", "yuvj420p")
_HOW: Any = {"interpolation": Interpolation.BILINEAR, "threads": 1}  # without `threads` it would start its own


def upright_size(height: int, width: int, *, rotation: float = 0, short_side: int | None = None) -> tuple[int, int]:
    """Height and width of a stored picture once it is upright and, if `short_side` is given, resized to that.

    `rotation` is in degrees, counter-clockwise.
    """
    if round(rotation / 90) % 2:
        height, width = width, height
    if short_side is None:
        return height, width
    if height <= width:
        return short_side, round(width * short_side / height)
    return round(height * short_side / width), short_side


@dataclass
class Scaler:
    """Scales many frames of one size with FFmpeg's bilinear filter.

    The filter gets wider the more it shrinks a frame, so it does not alias.
    """

    # A new reformatter for every frame would take twice the time.
    _scale: VideoReformatter = field(default_factory=VideoReformatter)
    _convert: VideoReformatter = field(default_factory=VideoReformatter)

    def to_rgb(self, frame: VideoFrame, size: tuple[int, int], rotation: float = 0) -> np.ndarray:
        """uint8 `(H, W, 3)`, turned upright, with height and width as in `size`; it may share memory with FFmpeg."""
        quarter_turns = round(rotation / 90)
        height, width = size[::-1] if quarter_turns % 2 else size
        if frame.format.name in _SCALED_FIRST:
            frame = self._scale.reformat(frame, width, height, frame.format.name, **_HOW)
        frame = self._convert.reformat(frame, width, height, "rgb24", **_HOW)
        return np.rot90(frame.to_ndarray(), quarter_turns)


class Canvas:
    """The array to fill: each wanted frame is converted once and put in all its places.

    Args:
        wanted: Frame numbers, at least one.
        short_side: As in `load_video`.
        size: Height and width of the array; by default those of the first frame put into it.
        num_frames: Of the video; numbers beyond stand for the last one. 0 if it is not known.
    """

    def __init__(
        self,
        wanted: Iterable[int],
        *,
        short_side: int | None = None,
        size: tuple[int, int] | None = None,
        num_frames: int = 0,
    ) -> None:
        self.short_side = short_side
        self.size = size
        self.first_size: tuple[int, int] | None = None  # what the first frame asked for has by itself
        self.image: np.ndarray | None = None
        self.missing: dict[int, list[int]] = {}  # frame number -> places in the array
        self.length = 0
        for place, number in enumerate(wanted):
            self.missing.setdefault(min(number, num_frames - 1) if num_frames else number, []).append(place)
            self.length += 1
        self._scaler = Scaler()

    def put(self, number: int, frame: VideoFrame, rotation: float) -> None:
        """Draws a frame wherever it is wanted."""
        places = self.missing.pop(number, None)
        if places is None:
            return
        own_size = upright_size(frame.height, frame.width, rotation=rotation, short_side=self.short_side)
        if 0 in places:
            self.first_size = own_size
        self.size = self.size or own_size
        if self.image is None:
            self.image = np.empty((self.length, *self.size, 3), np.uint8)
        rgb = self._scaler.to_rgb(frame, self.size, rotation)
        for place in places:
            self.image[place] = rgb
