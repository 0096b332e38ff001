"""Makes decoded frames what players show: upright, not mirrored, with square pixels; RGB, and of the size asked for."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from sifa_zoo.video.container import OpenVideo

# Scaled in their own format and then made RGB, in a third of the time that doing both at once takes.
_SCALED_FIRST = ("yuv420p", "yuvj420p")
_HOW: Any = {"interpolation": Interpolation.BILINEAR, "threads": 1}  # without `threads` it would start its own
COLOR_ATTRIBUTES = ("color_range", "colorspace", "color_primaries", "color_trc")
_WHOLE = (0, 0, 0, 0)
_MOST_STRETCH = 10  # a pixel that is said to be longer is taken for an error


@dataclass(frozen=True)
class Display:
    """What players do with a stored picture: cut it, stretch it until its pixels are square, mirror it, turn it.

    Attributes:
        rotation: Degrees, counter-clockwise, by which it is turned: -90, 0, 90 or 180.
        mirrored: Whether left and right are exchanged before it is turned.
        sample_aspect_ratio: Width of a stored pixel, if its height is 1.
        crop: Pixels cut off at the left, top, right and bottom.
    """

    rotation: int = 0
    mirrored: bool = False
    sample_aspect_ratio: float = 1.0
    crop: tuple[int, int, int, int] = _WHOLE

    @classmethod
    def of(cls, frame: VideoFrame, video: OpenVideo) -> Display:
        """What the display matrix of a frame and the container demand."""
        ratio = video.sample_aspect_ratio
        if not 1 / _MOST_STRETCH <= ratio <= _MOST_STRETCH:
            ratio = 1.0
        crop = left, top, right, bottom = video.crop
        if left + right >= frame.width or top + bottom >= frame.height:
            crop = _WHOLE
        matrix = frame.side_data.get("DISPLAYMATRIX")
        if not isinstance(matrix, SideData):
            return cls(0, False, ratio, crop)
        # Pixel (x, y) is shown at (a x + c y, b x + d y), but for a shift.
        a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
        mirrored = a * d - b * c < 0
        if mirrored:
            a, b = -a, -b
        if abs(a) >= abs(b):
            return cls(0 if a >= 0 else 180, mirrored, ratio, crop)
        return cls(90 if b < 0 else -90, mirrored, ratio, crop)

    def size(self, height: int, width: int, *, short_side: int | None = None) -> tuple[int, int]:
        """Height and width at which a picture of that stored size is shown; resized, if `short_side` is given.

        No side gets smaller by being stretched.
        """
        left, top, right, bottom = self.crop
        height, width = height - top - bottom, width - left - right
        if self.sample_aspect_ratio > 1:
            width = round(width * self.sample_aspect_ratio)
        elif self.sample_aspect_ratio < 1:
            height = round(height / self.sample_aspect_ratio)
        if self.rotation % 180:
            height, width = width, height
        if short_side is None:
            return height, width
        if height <= width:
            return short_side, round(width * short_side / height)
        return round(height * short_side / width), short_side

    def cut(self, frame: VideoFrame) -> VideoFrame:
        """The part of a stored frame that is shown; as RGB, if it cannot be cut out in the frame's own format."""
        left, top, right, bottom = self.crop
        rows, columns = slice(top, frame.height - bottom), slice(left, frame.width - right)
        if self.crop == _WHOLE or rows.start >= rows.stop or columns.start >= columns.stop:
            return frame  # also one smaller than the first, for which the crop was meant
        if frame.format.name not in _SCALED_FIRST or any(side % 2 for side in (*self.crop, frame.height, frame.width)):
            picture: Any = frame.to_ndarray(format="rgb24", threads=1)
            return VideoFrame.from_ndarray(np.ascontiguousarray(picture[rows, columns]), format="rgb24")
        return map_planes(frame, lambda plane, step: plane[_every(step, rows), _every(step, columns)])

    def turn(self, picture: np.ndarray) -> np.ndarray:
        """A stored picture `(H, W, ...)` as it is shown, without being stretched."""
        return np.rot90(picture[:, ::-1] if self.mirrored else picture, self.rotation // 90)


def map_planes(frame: VideoFrame, change: Callable[[np.ndarray, int], np.ndarray]) -> VideoFrame:
    """A 4:2:0 frame of even size, of which each plane `(H, W)` is changed; its colours mean the same.

    `change` is given a plane and how many pixels one of its values stands for in each direction.
    """
    height, width = frame.height, frame.width
    planes = np.split(frame.to_ndarray().ravel(), [height * width, height * width * 5 // 4])
    changed = [
        change(plane.reshape(height // step, width // step), step)
        for plane, step in zip(planes, (1, 2, 2), strict=True)
    ]
    stacked = np.concatenate([plane.ravel() for plane in changed]).reshape(-1, changed[0].shape[1])
    result = VideoFrame.from_ndarray(stacked, format=frame.format.name)
    for name in COLOR_ATTRIBUTES:
        setattr(result, name, getattr(frame, name))
    return result


def _every(step: int, pixels: slice) -> slice:
    return slice(pixels.start // step, pixels.stop // step)


@dataclass
class Scaler:
    """Scales many frames of one size with FFmpeg's bilinear filter.

    The filter gets wider the more it shrinks a frame, so it does not alias.
    """

    # A new reformatter for every frame would take twice the time.
    _scale: VideoReformatter = field(default_factory=VideoReformatter)
    _convert: VideoReformatter = field(default_factory=VideoReformatter)

    def to_rgb(self, frame: VideoFrame, size: tuple[int, int], display: Display) -> np.ndarray:
        """uint8 `(H, W, 3)` as players show it, with height and width as in `size`; may share memory with FFmpeg."""
        height, width = size[::-1] if display.rotation % 180 else size
        if display.crop != _WHOLE:
            frame = display.cut(frame)
        if frame.format.name in _SCALED_FIRST:
            frame = self._scale.reformat(frame, width, height, frame.format.name, **_HOW)
        frame = self._convert.reformat(frame, width, height, "rgb24", **_HOW)
        picture = frame.to_ndarray()
        return display.turn(picture) if display.rotation or display.mirrored else picture


class Canvas:
    """The array to fill: each wanted frame is converted once and put in all its places.

    Args:
        wanted: Frame numbers.
        size: Height and width of the array.
        display: How the frames are shown.
        num_frames: Of the video; numbers beyond stand for the last one. 0 if it is not known.
    """

    def __init__(self, wanted: Iterable[int], *, size: tuple[int, int], display: Display, num_frames: int = 0) -> None:
        self.missing: dict[int, list[int]] = {}  # frame number -> places in the array
        length = 0
        for length, number in enumerate(wanted, 1):
            self.missing.setdefault(min(number, num_frames - 1) if num_frames else number, []).append(length - 1)
        self.image = np.empty((length, *size, 3), np.uint8)
        self._display = display
        self._scaler = Scaler()

    def put(self, number: int, frame: VideoFrame) -> None:
        """Draws a frame wherever it is wanted."""
        places = self.missing.pop(number, None)
        if places is None:
            return
        rgb = self._scaler.to_rgb(frame, self.image.shape[1:3], self._display)
        for place in places:
            self.image[place] = rgb
