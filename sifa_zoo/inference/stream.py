"""Classes over time, for a video of any length or a camera: decoded once, in order, in constant memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.sampling import ROUNDING_SECONDS
from sifa_zoo.datasets.transforms import eval_transform
from sifa_zoo.evaluation.scores import view_scores
from sifa_zoo.inference.predict import class_names_of, is_multi_label, top_classes
from sifa_zoo.inference.source import Source, open_source
from sifa_zoo.inference.windows import Windows, model_windows, window_indices
from sifa_zoo.runtime.checkpoint import clip_config


@dataclass(frozen=True)
class Window:
    """What the model sees of a window: its clip, uint8 `(T, H, W, 3)`, with each frame's time, float64 `(T,)` seconds.

    `start` and `end` are the window's own, in seconds; the end is that of its last frame.
    """

    clip: np.ndarray
    times: np.ndarray
    start: float
    end: float


@dataclass(frozen=True)
class WindowScores:
    """The best classes of a window, with scores in [0, 1], best first; `start` and `end` in seconds."""

    start: float
    end: float
    scores: list[tuple[str, float]]


@dataclass(frozen=True)
class Segment:
    """A stretch of the video with one best class: `start` and `end` in seconds, and the mean score of its windows."""

    start: float
    end: float
    label: str
    score: float
    windows: int


@contextmanager
def open_for(clip: ClipConfig, source: str | os.PathLike[str]) -> Iterator[Source]:
    """A video, as `open_source` takes it, at the size and the rate at which clips are cut."""
    with open_source(source, short_side=clip.short_side) as opened:
        yield at_rate(opened, clip.fps) if clip.fps else opened


def at_rate(source: Source, fps: float) -> Source:
    """The same video at another rate: for each time `i / fps`, the frame that is shown then, as in sampling by time.

    The last of these times is at or before that of the last frame.
    """

    def frames() -> Iterator[tuple[float, np.ndarray]]:
        count, shown = 0, None
        for time, frame in source.frames:
            while shown is not None and count / fps + ROUNDING_SECONDS < time:
                yield count / fps, shown
                count += 1
            shown = frame
        if shown is not None and count / fps <= time + ROUNDING_SECONDS:
            yield count / fps, shown

    return Source(fps, frames())


def slide(source: Source, clip: ClipConfig, windows: Windows) -> Iterator[Window]:
    """The windows of a source as they become complete; no more frames are kept than a window has."""
    ring: deque[tuple[float, np.ndarray]] = deque(maxlen=windows.window)
    count = 0
    for count, frame in enumerate(source.frames, 1):
        ring.append(frame)
        if windows.due(count) is not None:
            yield _cut(ring, clip, fps=source.fps)
    if count and windows.rest(count) is not None:
        yield _cut(ring, clip, fps=source.fps)


def crop(clips: np.ndarray, clip: ClipConfig) -> Tensor:
    """A window's clip cropped as in evaluation, uint8 `(C, T, H, W)`."""
    return eval_transform(clip, normalize=False)(torch.from_numpy(clips).permute(0, 3, 1, 2))


@torch.inference_mode()
def predict_stream(
    model: nn.Module,
    source: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    clip: ClipConfig | None = None,
    window: int | str | None = None,
    hop: int | str | None = None,
    topk: int = 5,
    device: torch.device | str | None = None,
) -> Iterator[WindowScores]:
    """The best classes of each window of a video, as it is decoded.

    Args:
        model: A model of the zoo with a trained head; it is set to eval mode.
        source: A video file, a camera (`/dev/video0`), a URL, or `-` for standard input.
        class_names: One name per class; None takes those that travel with the weights.
        clip: How to cut and transform; None takes the settings that travel with the weights.
        window: Frames (of `clip.fps`, if that is set), or seconds as in "2.5s"; None takes the span of the clip.
        hop: Distance between windows, likewise; None takes half of num_frames x frame_stride, or of the window if that
            is given.
        topk: Maximum number of classes to return.
        device: Where to run; the model is moved there. None leaves it where it is.

    Raises:
        ValueError: If the head was never trained, or a length is out of range.
        VideoError: If the source cannot be opened or decoded.

    Example:
        >>> for segment in merge(predict_stream(model, "match.mp4", hop="1s")):  # doctest: +SKIP
        ...     print(segment.start, segment.end, segment.label)
    """
    names = class_names_of(model, class_names)
    if topk < 1:
        raise ValueError(f"topk must be at least 1, got {topk}")
    clip = clip or clip_config(model)
    model = model.to(device).eval()
    with open_for(clip, source) as opened:
        windows = model_windows(clip, window=window, hop=hop, fps=opened.fps, overlap=True)
        for cut in slide(opened, clip, windows):
            scores = view_scores(
                model,
                crop(cut.clip, clip)[None, None],
                clip=clip,
                device=next(model.parameters()).device,
                multi_label=is_multi_label(model),
                names=[str(source)],
            )
            yield WindowScores(cut.start, cut.end, top_classes(scores[0, 0], names, topk=topk))


def merge(windows: Iterable[WindowScores]) -> Iterator[Segment]:
    """Merge neighbouring windows with the same best class into segments, each as soon as the class changes.

    Segments follow one another without gap or overlap: two meet halfway between the middles of their last and first
    window. The first starts with its first window, the last ends with its last.
    """
    current: Segment | None = None
    previous: WindowScores | None = None
    for window in windows:
        label, score = window.scores[0]
        if current is None or previous is None:
            current = Segment(window.start, window.end, label, score, 1)
        elif label == current.label:
            mean = (current.score * current.windows + score) / (current.windows + 1)
            current = Segment(current.start, window.end, label, mean, current.windows + 1)
        else:
            border = (previous.start + previous.end + window.start + window.end) / 4
            yield Segment(current.start, border, current.label, current.score, current.windows)
            current = Segment(border, window.end, label, score, 1)
        previous = window
    if current is not None:
        yield current


def _cut(ring: Sequence[tuple[float, np.ndarray]], clip: ClipConfig, *, fps: float) -> Window:
    chosen = [ring[i] for i in window_indices(len(ring), clip)]
    end = ring[-1][0] + (1 / fps if fps else 0.0)
    frames, times = np.stack([frame for _, frame in chosen]), np.array([time for time, _ in chosen])
    return Window(frames, times, ring[0][0], end)
