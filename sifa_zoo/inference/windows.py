"""Windows that slide over a video of unknown length: index arithmetic only, no files.

    frame     0  1  2  3  4  5  6  7  8  9        10 frames, window 4, hop 4
    window 0 [         ]
    window 1             [         ]
    window 2                   [         ]        the last one is moved back, to end with the video

A window starts every `hop` frames. If frames are left at the end, one more window ends with the last frame; a video
shorter than a window is one window by itself. So N frames make

    1                                 if N <= window
    1 + ceil((N - window) / hop)      otherwise
"""

from __future__ import annotations

from dataclasses import dataclass

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.sampling import clip_indices


@dataclass(frozen=True)
class Windows:
    """Windows of `window` frames, one every `hop` frames.

    Raises:
        ValueError: If either is less than 1.

    Example:
        >>> Windows(window=4, hop=4).starts(10)
        [0, 4, 6]
    """

    window: int
    hop: int

    def __post_init__(self) -> None:
        if self.window < 1 or self.hop < 1:
            raise ValueError(f"window and hop must be at least 1 frame, got {self.window} and {self.hop}")

    def count(self, num_frames: int) -> int:
        """The number of windows in a video of `num_frames` frames."""
        return 1 + max(0, -(-(num_frames - self.window) // self.hop))

    def starts(self, num_frames: int) -> list[int]:
        """The first frame of each window."""
        last = max(0, num_frames - self.window)
        return [min(i * self.hop, last) for i in range(self.count(num_frames))]

    def due(self, num_seen: int) -> int | None:
        """The first frame of the window that the last of `num_seen` frames completes, or None."""
        start = num_seen - self.window
        return start if start >= 0 and start % self.hop == 0 else None

    def rest(self, num_frames: int) -> int | None:
        """The first frame of the window that only the end of the video completes, or None."""
        if num_frames < self.window:
            return 0
        return None if self.due(num_frames) is not None else num_frames - self.window


def model_windows(
    clip: ClipConfig, *, window: int | str | None, hop: int | str | None, fps: float, overlap: bool
) -> Windows:
    """The windows for a model's clip.

    Args:
        clip: How the model's clips are cut. A dense clip of 16 frames at stride 4 spans 61 frames.
        window: Frames, or seconds as in "2.5s"; None takes the span of a dense clip.
        hop: Likewise; None takes num_frames x frame_stride, or the window if that is given, and half of it with
            `overlap`.
        fps: Frames per second, for lengths in seconds.
        overlap: Whether windows overlap by half unless `hop` says otherwise.

    Raises:
        ValueError: If a length is out of range, or the model's clips have no length of their own and none is given.
    """
    if window is None and clip.sampling != "dense":
        raise ValueError("the model's clips are spread over a whole video, so a window has to be given, such as 5s")
    frames = clip.span if window is None else to_frames(window, fps=fps)
    apart = clip.num_frames * clip.frame_stride if window is None else frames
    usual_hop = max(1, apart // 2) if overlap else apart
    return Windows(frames, usual_hop if hop is None else to_frames(hop, fps=fps))


def window_indices(num_frames: int, clip: ClipConfig) -> list[int]:
    """The frames that the model sees of a window: those of its clip of a video of `num_frames` frames."""
    return clip_indices(num_frames, num_frames=clip.num_frames, frame_stride=clip.frame_stride, sampling=clip.sampling)


def to_frames(length: int | str, *, fps: float) -> int:
    """The number of frames, at least one, in a length given in frames, `16`, or in seconds, `"2.5s"`.

    Raises:
        ValueError: If it is neither, or not positive, or the rate is unknown.

    Example:
        >>> to_frames("0.5s", fps=30.0)
        15
    """
    text = str(length).strip()
    try:
        value = float(text.removesuffix("s")) if text.endswith("s") else int(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e9:
        raise ValueError(f"a length must be frames, such as 16, or seconds, such as 2.5s, got {length!r}")
    if isinstance(value, int):
        return value
    if not fps > 0:
        raise ValueError(f"the frame rate is not known, so give frames instead of {length!r}")
    return max(1, round(value * fps))
