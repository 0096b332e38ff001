"""Reads frames of a video by number: exact, upright, RGB, resized in the same pass. Uses PyAV.

Frame number i is the i-th frame that a single-threaded decoder puts out; headers, durations and rates are not trusted.
Given the index of the file (see `index`), a frame can be reached in two ways:

- at random: decode from the keyframe before the wanted frame up to the packet that gives it. Packets are read from
  their places in the file, without FFmpeg opening it, or reached by a seek that is checked. Decoding is checked, too:
  damage that the container hides is noticed when decoding reaches it.
- in order: decode from the start and count. This is always right; it serves all other files, and those that fail a
  check.

Frames that are neither wanted nor referred to by others are not decoded.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass

import av
import numpy as np
from av.error import FFmpegError

from sifa_zoo.video.container import File, NamedBytes, VideoError, find_file, frames_in_order
from sifa_zoo.video.index import Disagreement, Index, Pass
from sifa_zoo.video.index_cache import find_index, save_index
from sifa_zoo.video.picture_folder import find_folder, read_pictures
from sifa_zoo.video.random_access import frames_at_random
from sifa_zoo.video.scaling import Scaler, resized, turns, upright_size

__all__ = ["Frames", "NamedBytes", "VideoError", "VideoInfo", "frame_times", "load_frames", "load_video", "video_info"]

Video = str | os.PathLike[str] | bytes


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video.

    Attributes:
        num_frames: How many frames can be decoded.
        fps: Average rate in frames per second; 0 for a folder of pictures.
        height: Pixels, upright.
        width: Pixels, upright.
        duration_seconds: `num_frames / fps`.
        codec: FFmpeg's name, such as h264; for a folder of pictures the format of the first one.
        container: FFmpeg's name, such as avi; `folder` for a folder of pictures.
        rotation: Degrees, counter-clockwise, by which stored frames are turned to be upright.
        variable_rate: Whether distances between frames differ by more than rounding of their times explains.
        num_bytes: Size of the file, or of all pictures.
        num_corrupt: Packets that are marked as damaged or cannot be decoded, as far as the file was read.
        random_access: Whether frames are reached without decoding from the start.
    """

    num_frames: int
    fps: float
    height: int
    width: int
    duration_seconds: float
    codec: str
    container: str
    rotation: int
    variable_rate: bool
    num_bytes: int
    num_corrupt: int
    random_access: bool


@dataclass(frozen=True)
class Frames:
    """Frames of a video.

    Attributes:
        images: uint8 `(T, H, W, 3)`, RGB, upright.
        numbers: int64 `(T,)`, their numbers in the video; numbers beyond the end became that of the last frame.
        pts_seconds: float64 `(T,)`, when each is shown; NaN where the file does not say.
    """

    images: np.ndarray
    numbers: np.ndarray
    pts_seconds: np.ndarray


def load_video(path: Video, frames: Sequence[int] | None = None, short_side: int | None = None) -> np.ndarray:
    """Decodes frames of a video.

    Args:
        path: The video file, a folder of pictures, or the bytes of a video file (as `NamedBytes`, errors name them).
        frames: Frame numbers in any order, repeats allowed; numbers beyond the end give the last frame. None: all.
        short_side: Resize so that the shorter side has this many pixels, keeping the aspect ratio. None: as stored.

    Returns:
        uint8 `(T, H, W, 3)`, RGB, upright. If the size changes within the video, all frames get the size of the first
        one asked for.

    Raises:
        VideoError: If the file is missing, is not a video, or no frame of it can be decoded.
        ValueError: If a frame number is negative or `short_side` is less than 1.

    Example:
        >>> load_video("clip.mp4", frames=range(0, 64, 4), short_side=256).shape  # doctest: +SKIP
        (16, 256, 455, 3)
    """
    wanted = _check(frames, short_side)
    if (folder := find_folder(path)) is not None:
        return read_pictures(folder, wanted, short_side)
    file = find_file(path)
    return _load(file, find_index(file), wanted, short_side)


def load_frames(path: Video, frames: Sequence[int] | None = None, short_side: int | None = None) -> Frames:
    """Decodes frames of a video, as `load_video` does, with the times at which they are shown.

    The times are those that ffprobe prints as `best_effort_timestamp_time`. They need not start at 0.

    Example:
        >>> load_frames("clip.mp4", frames=[0, 30]).pts_seconds  # doctest: +SKIP
        array([0.  , 1.001])
    """
    images = load_video(path, frames, short_side)
    times = frame_times(path)
    wanted = _check(frames, short_side)
    numbers = np.arange(len(times)) if wanted is None else np.minimum(np.array(wanted, np.int64), len(times) - 1)
    return Frames(images[: len(numbers)], numbers, times[numbers])


def frame_times(path: Video, *, complete: bool = False) -> np.ndarray:
    """When each frame of a video is shown, in seconds: float64 `(num_frames,)`, NaN where the file does not say.

    Args:
        path: As in `load_video`.
        complete: Fill in missing times by the average rate, as sampling in time needs them all. A folder of pictures
            still has none, since it has no rate.

    Raises:
        VideoError: If the file is missing, is not a video, or no frame of it can be decoded.

    Example:
        >>> frame_times("clip.mp4")[:3]  # doctest: +SKIP
        array([0.        , 0.03336667, 0.06673333])
    """
    if (folder := find_folder(path)) is not None:
        return np.full(len(folder.names), np.nan)
    index = _known_index(find_file(path))
    return _complete(index.seconds, index.fps) if complete else index.seconds


def video_info(path: Video) -> VideoInfo:
    """Describes a video. Decodes a few frames, or once all of them where packets do not tell how many there are.

    Raises:
        VideoError: If the file is missing, is not a video, or no frame of it can be decoded.

    Example:
        >>> video_info("clip.mp4").num_frames  # doctest: +SKIP
        300
    """
    if (folder := find_folder(path)) is not None:
        return VideoInfo(
            len(folder.names), 0.0, *folder.size, 0.0, folder.codec, "folder", 0, False, folder.num_bytes, 0, True
        )
    file = find_file(path)
    index = _known_index(file)
    return VideoInfo(
        num_frames=index.num_frames,
        fps=index.fps,
        height=index.size[0],
        width=index.size[1],
        duration_seconds=index.num_frames / index.fps if index.fps else 0.0,
        codec=index.codec,
        container=index.container,
        rotation=index.rotation,
        variable_rate=index.variable_rate,
        num_bytes=file.size,
        num_corrupt=index.num_corrupt,
        random_access=index.random_access,
    )


def _check(frames: Sequence[int] | None, short_side: int | None) -> list[int] | None:
    if short_side is not None and short_side < 1:
        raise ValueError(f"short_side must be at least 1 pixel, got {short_side = }")
    wanted = None if frames is None else [operator.index(number) for number in frames]
    if wanted and min(wanted) < 0:
        raise ValueError(f"frame numbers count from 0, got {min(wanted)}")
    return wanted


def _complete(times: np.ndarray, fps: float) -> np.ndarray:
    """Spaces missing times evenly between known ones; before the first and after the last they follow the rate."""
    known = np.flatnonzero(np.isfinite(times))
    if len(known) == len(times) or not fps:
        return times
    numbers = np.arange(len(times))
    if not len(known):
        return numbers / fps
    before, after = np.minimum(numbers - known[0], 0), np.maximum(numbers - known[-1], 0)
    return np.interp(numbers, known, times[known]) + (before + after) / fps


def _known_index(file: File) -> Index:
    index = find_index(file)
    if not index.known:
        _read_in_order(file, index, _Canvas([], short_side=None))
    return index


def _load(file: File, index: Index, wanted: list[int] | None, short_side: int | None) -> np.ndarray:
    every = wanted is None
    if wanted is None:
        wanted = list(range(_known_index(file).num_frames))
    if not wanted:
        return np.empty((0, *resized(index.size, short_side), 3), np.uint8)
    canvas = _read(file, index, _Canvas(wanted, short_side=short_side))
    if canvas.size != canvas.first_size:
        canvas = _read(file, index, _Canvas(wanted, short_side=short_side, size=canvas.first_size))
    assert canvas.image is not None
    # Decoding may have brought damage to light, and with it that there are fewer frames than packets.
    return canvas.image[: index.num_frames] if every else canvas.image


class _Canvas:
    """The array to fill: each wanted frame is converted once and put in all its places."""

    def __init__(self, wanted: Sequence[int], *, short_side: int | None, size: tuple[int, int] | None = None) -> None:
        self.wanted = wanted
        self.short_side = short_side
        self.size = size  # height and width of the array; by default those of the first frame put into it
        self.first_size: tuple[int, int] | None = None  # what the first frame asked for has by itself
        self.image: np.ndarray | None = None
        self.missing: dict[int, list[int]] = {}  # frame number -> places in the array
        self._scaler = Scaler()

    def clear(self, num_frames: int | None) -> None:
        """Makes all frames missing again; numbers beyond the end, if it is known, stand for the last frame."""
        self.missing = {}
        for place, number in enumerate(self.wanted):
            number = number if num_frames is None else min(number, num_frames - 1)
            self.missing.setdefault(number, []).append(place)

    def put(self, number: int, frame: av.VideoFrame, rotation: float) -> None:
        """Draws a frame wherever it is wanted."""
        places = self.missing.pop(number, None)
        if places is None:
            return
        quarter_turns = turns(rotation)
        natural = resized(upright_size(frame, quarter_turns), self.short_side)
        if 0 in places:
            self.first_size = natural
        self.size = self.size or natural
        if self.image is None:
            self.image = np.empty((len(self.wanted), *self.size, 3), np.uint8)
        stored = self.size[::-1] if quarter_turns % 2 else self.size
        rgb = np.rot90(self._scaler.to_rgb(frame, stored), quarter_turns)
        for place in places:
            self.image[place] = rgb


def _read(file: File, index: Index, canvas: _Canvas) -> _Canvas:
    if index.random_access:
        canvas.clear(index.num_frames)
        if _read_at_random(file, index, canvas):
            return canvas
        index.distrust()
        _read_in_order(file, index, _Canvas([], short_side=None))  # to the end, so that the index is saved
    canvas.clear(index.num_frames if index.known else None)
    _read_in_order(file, index, canvas)
    return canvas


def _read_in_order(file: File, index: Index, canvas: _Canvas) -> None:
    """Decodes from the start to the last frame wanted or, if none is, to the end.

    From a pass to the end the index learns which packet gives which frame.
    """
    decoded = Pass()
    number = -1
    for frame, pts in frames_in_order(file):
        if frame is None:
            decoded.num_corrupt += 1
            continue
        number += 1
        canvas.put(number, frame, frame.rotation)
        if canvas.wanted and not canvas.missing:
            return
        decoded.add(frame, pts)
        last = frame
    if number < 0:
        raise VideoError(f"{file.path}: not one frame of its {index.codec} stream can be decoded, the file is damaged")
    index.learn(decoded)
    save_index(file, index)
    for beyond in list(canvas.missing):
        canvas.put(beyond, last, last.rotation)


def _read_at_random(file: File, index: Index, canvas: _Canvas) -> bool:
    """Fills the canvas, decoding from keyframes on. False if anything casts doubt on the result."""
    try:
        for number, frame in frames_at_random(file, index, sorted(canvas.missing)):
            # A decoder without FFmpeg's container does not know of a rotation that the container demands.
            canvas.put(number, frame, frame.rotation or index.rotation)
    except (Disagreement, FFmpegError):
        return False
    return True
