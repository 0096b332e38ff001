"""Which frames of a video make a clip: index arithmetic only, no files.

Dense (16 frames at stride 4, say) follows SlowFast: a window of the video at a fixed distance between frames. Uniform
follows TSN: the video is cut into as many equal segments as the clip has frames, and each segment gives one.
"""

from __future__ import annotations

import random


def clip_indices(
    num_video_frames: int,
    *,
    num_frames: int,
    frame_stride: int = 1,
    sampling: str = "dense",
    clip: int = 0,
    num_clips: int = 1,
    generator: random.Random | None = None,
) -> list[int]:
    """Frame numbers of one clip, in rising order.

    Args:
        num_video_frames: Frames that the video has.
        num_frames: Frames that the clip has.
        frame_stride: Distance between neighbouring frames of a dense clip, in frames; unused by uniform sampling.
        sampling: `dense` or `uniform`.
        clip: Which of `num_clips` evenly spaced clips; one dense clip is the centre, one uniform clip takes the middle
            of each segment.
        num_clips: How many clips cover the video.
        generator: Draws a random clip instead, for training.

    Returns:
        `num_frames` numbers below `num_video_frames`. A video too short for a dense clip repeats its last frame; one
        with fewer frames than a uniform clip repeats frames throughout.

    Raises:
        ValueError: If a number is out of range or `sampling` is unknown.

    Example:
        >>> clip_indices(100, num_frames=4, frame_stride=10)
        [34, 44, 54, 64]
        >>> clip_indices(100, num_frames=4, sampling="uniform")
        [12, 37, 62, 87]
    """
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
    if sampling == "dense":
        span = (num_frames - 1) * frame_stride + 1
        last_start = max(0, num_video_frames - span)
        start = _spread(last_start, clip, num_clips) if generator is None else generator.randint(0, last_start)
        return [min(start + i * frame_stride, num_video_frames - 1) for i in range(num_frames)]
    if sampling == "uniform":
        # Segment i is [i * num_video_frames / num_frames, (i + 1) * num_video_frames / num_frames).
        if generator is None:
            # Its part number `clip` of `num_clips`, taken in the middle; in whole numbers, to be exact.
            parts = num_frames * num_clips
            return [(2 * (i * num_clips + clip) + 1) * num_video_frames // (2 * parts) for i in range(num_frames)]
        edges = [i * num_video_frames // num_frames for i in range(num_frames + 1)]
        return [generator.randint(edges[i], max(edges[i], edges[i + 1] - 1)) for i in range(num_frames)]
    raise ValueError(f"sampling must be dense or uniform, got {sampling = }")


def _spread(last_start: int, clip: int, num_clips: int) -> int:
    """Start of a clip: the first clip starts at 0, the last at `last_start`, a single one halfway."""
    return last_start // 2 if num_clips == 1 else last_start * clip // (num_clips - 1)
