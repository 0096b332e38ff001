"""Which frames of a video make a clip: index arithmetic only, no files.

Dense sampling (16 frames at stride 4, say) follows SlowFast: a window of the video, with a fixed distance between
frames. Uniform sampling follows TSN: the video is cut into as many equal segments as the clip has frames, and each
segment gives one.

    frames        0 1 2 3 4 5 6 7 8 9
    dense             x   x   x         num_frames=3, frame_stride=2
    uniform         x     x     x       num_frames=3

With `fps`, dense clips are cut in time instead, so that motion has the same speed whatever the rate of the video:
neighbours are `frame_stride / fps` seconds apart, and each moment gives the frame that is shown then, the last one that
began before it.

    time          0         1         2         3   seconds
    frames        0    1    2    3    4     5   6   their times; the rate may vary
    moments           |         |         |         num_frames=3, frame_stride=1, fps=1
    dense             0         2         4
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

# Containers round times, Matroska to milliseconds, so a frame counts as shown this much before its time.
ROUNDING_SECONDS = 6e-4


def clip_indices(
    num_video_frames: int,
    *,
    num_frames: int,
    frame_stride: int = 1,
    sampling: str = "dense",
    clip: int = 0,
    num_clips: int = 1,
    generator: random.Random | None = None,
    fps: float | None = None,
    times: Sequence[float] | np.ndarray | None = None,
) -> list[int]:
    """Frame numbers of one clip, in rising order.

    Args:
        num_video_frames: Frames that the video has.
        num_frames: Frames that the clip has.
        frame_stride: Distance between neighbouring frames of a dense clip, in frames; unused by uniform sampling.
        sampling: `dense` or `uniform`.
        clip: Which of `num_clips` evenly spaced clips. A single dense clip is taken from the centre; a single uniform
            clip takes the middle of each segment.
        num_clips: How many clips cover the video.
        generator: Draws a random clip instead, for training.
        fps: Rate at which a dense clip sees the video, before `frame_stride` is applied. None: the video's own.
        times: When each frame is shown, in seconds, as `frame_times(path, complete=True)` returns it; needed with
            `fps`, and only then. Where times go back, the latest one so far counts.

    Returns:
        `num_frames` numbers below `num_video_frames`. A video too short for a dense clip repeats its last frame; one
        with fewer frames than a uniform clip repeats frames throughout.

    Raises:
        ValueError: If a number is out of range, `sampling` is unknown, or `fps` and `times` do not fit the rest.

    Example:
        >>> clip_indices(100, num_frames=4, frame_stride=10)
        [34, 44, 54, 64]
        >>> clip_indices(100, num_frames=4, sampling="uniform")
        [12, 37, 62, 87]
        >>> clip_indices(5, num_frames=3, fps=2, times=[0.0, 0.25, 0.5, 0.75, 1.0])
        [0, 2, 4]
    """
    _check_numbers(num_video_frames, num_frames=num_frames, frame_stride=frame_stride, clip=clip, num_clips=num_clips)
    if fps is not None or times is not None:
        fps, shown = _check_times(num_video_frames, sampling=sampling, fps=fps, times=times)
        offsets = np.arange(num_frames) * (frame_stride / fps)  # seconds
        start = _start_in_time(shown, offsets[-1], clip=clip, num_clips=num_clips, generator=generator)
        moments = shown[0] + start + offsets
        return np.maximum(0, np.searchsorted(shown, moments + ROUNDING_SECONDS, side="right") - 1).tolist()
    if sampling == "dense":
        span = (num_frames - 1) * frame_stride + 1
        last_start = max(0, num_video_frames - span)
        start = _spread(last_start, clip, num_clips) if generator is None else generator.randint(0, last_start)
        return [min(start + i * frame_stride, num_video_frames - 1) for i in range(num_frames)]
    if sampling == "uniform":
        return _uniform(num_video_frames, num_frames, clip=clip, num_clips=num_clips, generator=generator)
    raise ValueError(f"sampling must be dense or uniform, got {sampling = }")


def _check_numbers(num_video_frames: int, *, num_frames: int, frame_stride: int, clip: int, num_clips: int) -> None:
    for name, value in (
        ("num_video_frames", num_video_frames),
        ("num_frames", num_frames),
        ("frame_stride", frame_stride),
        ("num_clips", num_clips),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0 <= clip < num_clips:
        raise ValueError(f"clip must be in [0, num_clips), got {clip = }, {num_clips = }")


def _uniform(
    num_video_frames: int, num_frames: int, *, clip: int, num_clips: int, generator: random.Random | None
) -> list[int]:
    # Segment i is [i * num_video_frames / num_frames, (i + 1) * num_video_frames / num_frames).
    if generator is None:
        # The middle of part `clip` out of `num_clips` of each segment; in whole numbers, to be exact.
        parts = num_frames * num_clips
        return [(2 * (i * num_clips + clip) + 1) * num_video_frames // (2 * parts) for i in range(num_frames)]
    edges = [i * num_video_frames // num_frames for i in range(num_frames + 1)]
    return [generator.randint(edges[i], max(edges[i], edges[i + 1] - 1)) for i in range(num_frames)]


def _check_times(
    num_video_frames: int, *, sampling: str, fps: float | None, times: Sequence[float] | np.ndarray | None
) -> tuple[float, np.ndarray]:
    """The rate, and the times made never to go back."""
    if sampling != "dense":
        raise ValueError(f"fps is for dense sampling; uniform segments know no rate, got {sampling = }, {fps = }")
    if fps is None or times is None:
        raise ValueError("fps and times go together, got one without the other")
    if not fps > 0:
        raise ValueError(f"fps must be positive, got {fps = }")
    shown = np.asarray(times, np.float64)
    if shown.shape != (num_video_frames,):
        raise ValueError(f"times must be one per frame, got {num_video_frames = }, {len(shown)} times")
    if not np.isfinite(shown).all():
        raise ValueError(
            f"times must be known for sampling by fps, frame {np.flatnonzero(~np.isfinite(shown))[0]} has none; "
            "leave fps out for this video"
        )
    return fps, np.maximum.accumulate(shown)


def _start_in_time(
    times: np.ndarray, span: float, *, clip: int, num_clips: int, generator: random.Random | None
) -> float:
    """Seconds from the first frame to the start of a clip that covers `span` seconds."""
    latest = float(times[-1] - times[0] - span)
    if latest < 0 or len(times) == 1:
        return 0.0
    if generator is not None:
        shown_last = (times[-1] - times[0]) / (len(times) - 1)  # the last frame is shown as long as the average one
        return generator.uniform(0.0, latest + max(0.0, shown_last - 2 * ROUNDING_SECONDS))
    return latest / 2 if num_clips == 1 else latest * clip / (num_clips - 1)


def _spread(last_start: int, clip: int, num_clips: int) -> int:
    """Start of a clip: the first clip starts at 0, the last at `last_start`, a single one halfway."""
    return last_start // 2 if num_clips == 1 else last_start * clip // (num_clips - 1)
