"""Makes decoded frames RGB at the size asked for, and tells how they are turned upright."""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

# Scaled in their own format and then made RGB, in a third of the time that doing both at once takes.
_SCALED_FIRST = ("yuv420p", "yuvj420p")


def resized(size: tuple[int, int], short_side: int | None) -> tuple[int, int]:
    """Height and width scaled so that the shorter side is `short_side`; unchanged if None."""
    height, width = size
    if short_side is None:
        return size
    if height <= width:
        return short_side, round(width * short_side / height)
    return round(height * short_side / width), short_side


def turns(rotation: float) -> int:
    """Quarter turns, counter-clockwise, that make a stored frame upright; `rotation` is in degrees."""
    return round(rotation / 90) % 4


def upright_size(frame: VideoFrame, quarter_turns: int) -> tuple[int, int]:
    """Height and width of a frame after these turns."""
    return (frame.width, frame.height) if quarter_turns % 2 else (frame.height, frame.width)


class Scaler:
    """Scales many frames of one size with FFmpeg's bilinear filter.

    The filter gets wider the more it shrinks a frame, so it does not alias.
    """

    def __init__(self) -> None:
        self._scale, self._convert = VideoReformatter(), VideoReformatter()

    def to_rgb(self, frame: VideoFrame, size: tuple[int, int]) -> np.ndarray:
        """uint8 `(H, W, 3)` with height and width as in `size`; it may share memory with FFmpeg."""
        if frame.format.name in _SCALED_FIRST:
            frame = _reformat(self._scale, frame, size, frame.format.name)
        return _reformat(self._convert, frame, size, "rgb24").to_ndarray()


def _reformat(reformatter: VideoReformatter, frame: VideoFrame, size: tuple[int, int], pixels: str) -> VideoFrame:
    # A new reformatter for every frame would take twice the time, and without `threads` it would start its own.
    height, width = size
    return reformatter.reformat(frame, width, height, pixels, interpolation=Interpolation.BILINEAR, threads=1)
