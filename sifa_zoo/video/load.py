"""Reads frames of a video by number: exact, as players show them, RGB, resized in the same pass. Uses PyAV.

Frame number i is the i-th frame that a single-threaded decoder puts out; headers, durations and rates are not trusted.
How a frame is reached is said in `reader`.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sifa_zoo.video.container import NamedBytes, VideoError
from sifa_zoo.video.reader import Video, VideoInfo, open_reader

__all__ = ["Frames", "NamedBytes", "VideoError", "VideoInfo", "frame_times", "load_frames", "load_video", "video_info"]


@dataclass(frozen=True)
class Frames:
    """Frames of a video.

    Attributes:
        images: uint8 `(T, H, W, 3)`, RGB, as players show them.
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
        short_side: Resize so that the shorter side has this many pixels, keeping the aspect ratio. None: as shown.

    Returns:
        uint8 `(T, H, W, 3)`, RGB, as players show them: cropped, with square pixels, upright. If the size changes
        within the video, all frames get the size of its first one.

    Raises:
        VideoError: If the file is missing, is not a video, or no frame of it can be decoded.
        ValueError: If a frame number is negative or `short_side` is less than 1.

    Example:
        >>> load_video("clip.mp4", frames=range(0, 64, 4), short_side=256).shape  # doctest: +SKIP
        (16, 256, 455, 3)
    """
    if short_side is not None and short_side < 1:
        raise ValueError(f"short_side must be at least 1 pixel, got {short_side = }")
    wanted = None if frames is None else list(map(operator.index, frames))
    if wanted and min(wanted) < 0:
        raise ValueError(f"frame numbers count from 0, got {min(wanted)}")
    return open_reader(path).images(wanted, short_side)


def load_frames(path: Video, frames: Sequence[int] | None = None, short_side: int | None = None) -> Frames:
    """Decodes frames of a video, as `load_video` does, with the times at which they are shown.

    The times are those that ffprobe prints as `best_effort_timestamp_time`. They need not start at 0.

    Example:
        >>> load_frames("clip.mp4", frames=[0, 30]).pts_seconds  # doctest: +SKIP
        array([0.  , 1.001])
    """
    images = load_video(path, frames, short_side)
    times = frame_times(path)
    numbers = np.arange(len(times)) if frames is None else np.minimum(np.array(frames, np.int64), len(times) - 1)
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
    return open_reader(path).times(complete=complete)


def video_info(path: Video) -> VideoInfo:
    """Describes a video. Decodes a few frames, or once all of them where packets do not tell how many there are.

    Raises:
        VideoError: If the file is missing, is not a video, or no frame of it can be decoded.

    Example:
        >>> video_info("clip.mp4").num_frames  # doctest: +SKIP
        300
    """
    return open_reader(path).info
