"""A video read in order, in constant memory: a file of any length, a camera, a URL, standard input.

Cameras, URLs, standard input, MP4 and Matroska are decoded once. The times of other files are known only after a decode
of the whole file, which their index may have had before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

import av
import numpy as np
from av.error import FFmpegError
from av.video.stream import VideoStream

from sifa_zoo.video.container import (
    OpenVideo,
    VideoError,
    find_file,
    frames_in_order,
    open_video,
    packets,
    prepare,
    video_streams,
)
from sifa_zoo.video.index import MOST_BACK
from sifa_zoo.video.reader import open_reader
from sifa_zoo.video.scaling import Display, Scaler
from sifa_zoo.video.scan import TIMED_FORMATS

_CAMERAS = "/dev/video"
Timed: TypeAlias = Iterator[tuple[float, av.VideoFrame]]  # pairs of seconds since the first frame, and frame


@dataclass(frozen=True)
class Source:
    """A video being read: frames per second, and its frames, each with its time in seconds since the first.

    Frames are uint8 RGB `(H, W, 3)`, as players show them.
    """

    fps: float
    frames: Iterator[tuple[float, np.ndarray]]


@contextmanager
def open_source(source: str | os.PathLike[str], *, short_side: int) -> Iterator[Source]:
    """Open a video file, a camera (`/dev/video0`), a URL, or `-` for standard input.

    Frames are those of `load_video`, in number, pixels and size.

    Raises:
        VideoError: If it cannot be opened or has no video; on reading, if not one frame can be decoded.
    """
    name = os.fspath(source)
    is_live = name == "-" or "://" in name or name.startswith(_CAMERAS)
    with _open_live(name) if is_live else _open_file(name) as (video, fps, timed):
        yield Source(fps, _shown(timed, video, name=name, short_side=short_side))


@contextmanager
def _open_file(name: str) -> Iterator[tuple[OpenVideo, float, Timed]]:
    """A file, its rate, and its frames at the times by which clips are sampled."""
    if os.path.isdir(name):
        raise VideoError(f"{name}: a folder; pictures have no times, so name a video file")
    file = find_file(name)
    with open_video(file) as video:
        if video.container.format.name in TIMED_FORMATS:
            fps = _rate(video.stream)
            yield video, fps, _by_own_clock(video, interval=1 / (fps or 1))
            return
        reader = open_reader(name)
        times = reader.times(complete=True)
        frames = (frame for frame, _ in frames_in_order(file) if frame is not None)
        yield video, reader.info.fps, zip(map(float, times - times[0]), frames, strict=False)


@contextmanager
def _open_live(name: str) -> Iterator[tuple[OpenVideo, float, Timed]]:
    """A camera, URL or standard input, its rate, and its frames at their own times."""
    is_camera = name.startswith(_CAMERAS)
    try:
        if name == "-":
            opened = av.open("pipe:0", options={"protocol_whitelist": "pipe"}, metadata_errors="replace")
        else:
            opened = av.open(name, format="v4l2" if is_camera else None, metadata_errors="replace")
    except (FFmpegError, ValueError) as error:
        raise VideoError(f"{name}: cannot be opened as a video ({error})") from error
    with opened:
        streams = video_streams(opened)
        if not streams:
            raise VideoError(f"{name}: no video stream")
        stream = streams[0]
        prepare(stream.codec_context)
        fps = _rate(stream)
        video = OpenVideo(opened, stream, len(streams))
        yield video, fps, _by_own_clock(video, interval=1 / (fps or 1))


def _rate(stream: VideoStream) -> float:
    """Frames per second; 0 if not known."""
    return float(stream.average_rate or stream.guessed_rate or 0)


def _by_own_clock(video: OpenVideo, *, interval: float) -> Timed:
    """Frames with seconds since the first; `interval` is added where times stand still, go back or are missing."""
    start = seconds = None
    for frame in _decode(video):
        base = frame.time_base or video.stream.time_base  # frames that the decoder held back have none
        own = None if frame.pts is None or base is None else float(frame.pts * base)
        if start is None or seconds is None:
            start, seconds = own or 0.0, 0.0
        elif own is not None and own - start > seconds:
            seconds = own - start
        else:
            if own is not None and own - start < seconds - MOST_BACK:
                start = own - seconds - interval  # the clock was set back and goes on from here
            seconds += interval
        yield seconds, frame


def _shown(timed: Timed, video: OpenVideo, *, name: str, short_side: int) -> Iterator[tuple[float, np.ndarray]]:
    """Frames as players show them; all are shown as the first and scaled to its size."""
    scaler, display = Scaler(), None
    for seconds, frame in timed:
        if display is None:
            display = Display.of(frame, video)
            size = display.size(frame.height, frame.width, short_side=short_side)
        yield seconds, scaler.to_rgb(frame, size, display).copy()  # FFmpeg reuses its memory
    if display is None:
        hint = "; an MP4 can be piped if it was written for that (ffmpeg -movflags +faststart)" if name == "-" else ""
        raise VideoError(f"{name}: not one frame can be decoded{hint}")


def _decode(video: OpenVideo) -> Iterator[av.VideoFrame]:
    """All frames; damaged packets are skipped."""
    for packet in chain(packets(video), [None]):  # None flushes the decoder
        try:
            yield from video.codec.decode(packet)
        except FFmpegError:
            continue
