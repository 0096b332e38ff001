"""Classes over time, for a video of any length or a camera: decoded once, in order, in constant memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

import av
import numpy as np
import torch
from av.error import FFmpegError
from av.video.stream import VideoStream
from torch import Tensor, nn

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.sampling import ROUNDING_SECONDS
from sifa_zoo.datasets.transforms import eval_transform
from sifa_zoo.evaluation.scores import view_scores
from sifa_zoo.inference.predict import class_names_of, is_multi_label, top_classes
from sifa_zoo.inference.windows import Windows, model_windows, window_indices
from sifa_zoo.runtime.checkpoint import clip_config
from sifa_zoo.video import container
from sifa_zoo.video.container import VideoError
from sifa_zoo.video.load import frame_times, video_info
from sifa_zoo.video.scaling import Scaler, upright_size
from sifa_zoo.video.scan import TIMED_FORMATS

_CAMERAS = "/dev/video"
Timed: TypeAlias = Iterator[tuple[float, av.VideoFrame]]  # pairs of seconds since the first frame, and frame


@dataclass(frozen=True)
class Source:
    """A video being read: frames per second, and its frames, each with its time in seconds since the first.

    Frames are uint8 RGB `(H, W, 3)`, upright.
    """

    fps: float
    frames: Iterator[tuple[float, np.ndarray]]


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
def open_source(source: str | os.PathLike[str], *, short_side: int, fps: float | None = None) -> Iterator[Source]:
    """Open a video file, a camera (`/dev/video0`), a URL, or `-` for standard input.

    Frames are those of `load_video`, in number, pixels and size; with `fps`, at that rate instead.

    Raises:
        VideoError: If it cannot be opened or has no video; on reading, if not one frame can be decoded.
    """
    name = os.fspath(source)
    is_live = name == "-" or "://" in name or name.startswith(_CAMERAS)
    with _open_live(name) if is_live else _open_file(name) as (own_fps, timed):
        video = Source(own_fps, _upright(timed, name=name, short_side=short_side))
        yield at_rate(video, fps) if fps else video


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


def to_input(clips: np.ndarray, clip: ClipConfig) -> Tensor:
    """The model's input `(C, T, H, W)` of a window's clip, transformed as in evaluation."""
    return eval_transform(clip)(torch.from_numpy(clips).permute(0, 3, 1, 2))


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
    with open_source(source, short_side=clip.short_side, fps=clip.fps) as opened:
        windows = model_windows(clip, window=window, hop=hop, fps=opened.fps, overlap=True)
        for cut in slide(opened, clip, windows):
            scores = view_scores(
                model,
                to_input(cut.clip, clip)[None, None],
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


@contextmanager
def _open_file(name: str) -> Iterator[tuple[float, Timed]]:
    """The rate of a file, and its frames at the times by which clips are sampled."""
    if os.path.isdir(name):
        raise VideoError(f"{name}: a folder; pictures have no times, so name a video file")
    file = container.find_file(name)
    with container.open_video(file) as video:
        if video.container.format.name in TIMED_FORMATS:
            fps = _rate(video.stream)
            yield fps, _by_own_clock(video, interval=1 / (fps or 1))
            return
    times = np.maximum.accumulate(frame_times(name, complete=True))  # of packets without times of their own
    frames = (frame for frame, _ in container.frames_in_order(file) if frame is not None)
    yield video_info(name).fps, zip(map(float, times - times[0]), frames, strict=False)


@contextmanager
def _open_live(name: str) -> Iterator[tuple[float, Timed]]:
    """The rate of a camera, URL or standard input, and its frames at their own times."""
    is_camera = name.startswith(_CAMERAS)
    try:
        if name == "-":
            opened = av.open("pipe:0", options={"protocol_whitelist": "pipe"}, metadata_errors="replace")
        else:
            opened = av.open(name, format="v4l2" if is_camera else None, metadata_errors="replace")
    except (FFmpegError, ValueError) as error:
        raise VideoError(f"{name}: cannot be opened as a video ({error})") from error
    with opened:
        if not opened.streams.video:
            raise VideoError(f"{name}: no video stream")
        stream = opened.streams.video[0]
        container.use_one_thread(stream.codec_context)
        fps = _rate(stream)
        yield fps, _by_own_clock(container.OpenVideo(opened, stream), interval=1 / (fps or 1))


def _rate(stream: VideoStream) -> float:
    """Frames per second; 0 if not known."""
    return float(stream.average_rate or stream.guessed_rate or 0)


def _by_own_clock(video: container.OpenVideo, *, interval: float) -> Timed:
    """Frames with seconds since the first; `interval` is added where times stand still, go back or are missing."""
    first = seconds = None
    for frame in _decode(video):
        base = frame.time_base or video.stream.time_base  # frames that the decoder held back have none
        own = None if frame.pts is None or base is None else float(frame.pts * base)
        if first is None or seconds is None:
            first = seconds = own or 0.0
        else:
            seconds = own if own is not None and own > seconds else seconds + interval
        yield seconds - first, frame


def _upright(timed: Timed, *, name: str, short_side: int) -> Iterator[tuple[float, np.ndarray]]:
    """Upright frames as RGB; if the size changes, later frames are scaled to that of the first."""
    scaler, size = Scaler(), None
    for seconds, frame in timed:
        if size is None:
            size = upright_size(frame.height, frame.width, rotation=frame.rotation, short_side=short_side)
        yield seconds, scaler.to_rgb(frame, size, frame.rotation).copy()  # FFmpeg reuses its memory
    if size is None:
        hint = "; an MP4 can be piped if it was written for that (ffmpeg -movflags +faststart)" if name == "-" else ""
        raise VideoError(f"{name}: not one frame can be decoded{hint}")


def _decode(video: container.OpenVideo) -> Iterator[av.VideoFrame]:
    """All frames; damaged packets are skipped."""
    for packet in chain(container.packets(video), [None]):  # None flushes the decoder
        try:
            yield from video.codec.decode(packet)
        except FFmpegError:
            continue
