"""Reads the frames asked for from a video file: exact, upright, RGB, resized in the same pass. Uses PyAV.

Frame number i is the i-th frame that a single-threaded decoder puts out; headers, durations and rates are not believed.
One pass over the packets, without decoding, builds an index of the file, which is kept for as long as path, size and
time of change stay the same. With it there are two ways to a frame:

- by time: seek to the keyframe before a wanted frame, decode from there, and take frames by their presentation time.
  Only where the container seeks reliably and every packet has a time of its own, and checked while decoding: damage
  that the container hides is noticed when decoding reaches it.
- in order: decode from the start and count. Always right; serves all other files, and where the check fails.

No container stays open between calls and none crosses a fork. FFmpeg's log is off, as PyAV leaves it.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

_SEEKABLE_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
# Each packet of these holds one shown frame; any other codec must first prove it in a whole pass.
_ONE_FRAME_PER_PACKET = ("h264", "hevc", "vp9", "av1")
# Decoders that can leave out frames to which no other refers; dav1d (AV1) cannot do so packet by packet.
_SKIPPING_CODECS = ("h264", "hevc", "mpeg4", "mpeg2video", "vp8", "vp9")
# With the next keyframe at most this many frames away, decoding on is cheaper than a seek, which empties the decoder.
_SEEK_GAP = 8
_INDEX_CACHE_SIZE = 16384  # about 3 KB each for clips of ten seconds


class VideoError(ValueError):
    """A file that cannot be read as a video; the message begins with its path."""


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video: true number of frames, average rate, size after rotation (pixels), duration."""

    num_frames: int
    fps: float
    height: int
    width: int
    duration_seconds: float


def load_video(
    path: str | os.PathLike[str], frames: Sequence[int] | None = None, short_side: int | None = None
) -> np.ndarray:
    """Decodes frames of a video.

    Args:
        path: The video file.
        frames: Frame numbers in any order, repeats allowed; numbers beyond the end give the last frame. None: all.
        short_side: Resize so that the shorter side has this many pixels, keeping the aspect ratio. None: as stored.

    Returns:
        uint8 `(T, H, W, 3)`, RGB, upright. Should the size change within the video, frames are brought to the size of
        the first one asked for.

    Raises:
        VideoError: If the file is missing, is not a video, or no frame of it can be decoded.
        ValueError: If a frame number is negative or `short_side` is less than 1.

    Example:
        >>> load_video("clip.mp4", frames=range(0, 64, 4), short_side=256).shape  # doctest: +SKIP
        (16, 256, 455, 3)
    """
    if short_side is not None and short_side < 1:
        raise ValueError(f"short_side must be at least 1 pixel, got {short_side = }")
    wanted = None if frames is None else [operator.index(number) for number in frames]
    if wanted and min(wanted) < 0:
        raise ValueError(f"frame numbers count from 0, got {min(wanted)}")
    index = _find_index(path)
    if wanted is None:
        wanted = list(range(_count_frames(index)))
    if not wanted:
        return np.empty((0, *_resized(index.size, short_side), 3), np.uint8)

    canvas = _read(index, _Canvas(wanted, short_side=short_side))
    if canvas.size != canvas.first_size:
        canvas = _read(index, _Canvas(wanted, short_side=short_side, size=canvas.first_size))
    assert canvas.image is not None
    # Damage may only have come to light while decoding, and with it that there are fewer frames than packets.
    return canvas.image if frames is not None else canvas.image[: index.num_frames]


def video_info(path: str | os.PathLike[str]) -> VideoInfo:
    """Describes a video. Decodes one frame, or all of them once where packets do not tell how many there are.

    Raises:
        VideoError: If the file is missing, is not a video, or no frame of it can be decoded.

    Example:
        >>> video_info("clip.mp4").num_frames  # doctest: +SKIP
        300
    """
    index = _find_index(path)
    num_frames = _count_frames(index)
    return VideoInfo(num_frames, index.fps, *index.size, num_frames / index.fps if index.fps else 0.0)


@dataclass
class _Index:
    """What one pass over the packets tells. The last three fields change as decoding teaches more."""

    path: str
    times: np.ndarray  # of the frames in order of presentation, in units of the stream's time base
    key_times: np.ndarray  # of the packets at which decoding can start, rising
    size: tuple[int, int]  # height and width of the first frame, upright
    fps: float
    skipping: bool  # the decoder can leave out frames that nobody needs
    seekable: bool  # frames may be found by seeking and by their time
    proven: bool  # `times` are those of the frames that come out
    num_frames: int | None = None  # None: not counted yet

    @property
    def by_time(self) -> bool:
        return self.seekable and self.proven

    def learn(self, times: list[int | None]) -> None:
        """Takes in the times of all frames of the video, as they came out of the decoder."""
        self.num_frames = len(times)
        self.proven = times == self.times.tolist()

    def runs(self, numbers: Sequence[int]) -> Iterator[tuple[int, Sequence[int]]]:
        """Splits rising frame numbers into runs that are decoded without a seek, each with its keyframe's time."""
        keys = np.searchsorted(self.key_times, self.times[numbers], side="right") - 1
        key_numbers = np.searchsorted(self.times, self.key_times[keys])
        starts = np.flatnonzero(key_numbers[1:] - np.array(numbers[:-1], dtype=np.int64) > _SEEK_GAP) + 1
        for start, stop in zip([0, *starts], [*starts, len(numbers)], strict=True):
            yield int(self.key_times[keys[start]]), numbers[start:stop]


@dataclass(frozen=True)
class _Source:
    """An open file and its video stream."""

    container: InputContainer
    stream: VideoStream


def _find_index(path: str | os.PathLike[str]) -> _Index:
    path = os.fspath(path)
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be opened ({error})"
        raise VideoError(f"{path}: {reason}") from error
    if os.path.isdir(path):
        raise VideoError(f"{path}: is a folder, expected a video file")
    if status.st_size == 0:
        raise VideoError(f"{path}: the file is empty")
    return _build_index(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=_INDEX_CACHE_SIZE)
def _build_index(path: str, size: int, mtime_ns: int) -> _Index:
    """Reads all packets and decodes the first frame. Size and time of change are there for the cache alone."""
    times: list[int | None] = []
    key_times: list[int | None] = []
    sound = True
    first = None
    with _open(path) as source:
        for packet in _packets(source):
            if first is None:
                first = next(iter(_decode(source, packet)), None)
            if packet is None:
                break
            # Whether a decoder puts out frames without a keyframe before them is not foreseeable.
            sound &= not packet.is_corrupt and (packet.is_keyframe or bool(key_times))
            if packet.is_keyframe:
                key_times.append(packet.pts)
            if not packet.is_discard:  # an edit list cuts frames away, but decoding starts at their keyframes
                times.append(packet.pts)
        codec = source.stream.codec_context.codec.canonical_name
        rate = source.stream.average_rate or source.stream.guessed_rate
        time_base = source.stream.time_base
        sound &= source.container.format.name in _SEEKABLE_FORMATS
    if first is None:
        raise VideoError(f"{path}: not one frame of its {codec} stream can be decoded, the file is damaged")

    shown = np.array(sorted(time for time in times if time is not None), dtype=np.int64)
    keys = np.array(sorted(time for time in key_times if time is not None), dtype=np.int64)
    sound = sound and len(times) == len(np.unique(shown)) and len(key_times) == len(keys) and keys[0] <= shown[0]
    if sound and len(shown) > 1 and time_base:
        rate = (len(shown) - 1) / (int(shown[-1] - shown[0]) * time_base)
    proven = codec in _ONE_FRAME_PER_PACKET
    return _Index(
        path=path,
        times=shown,
        key_times=keys,
        size=_upright_size(first),
        fps=float(rate or 0),
        skipping=codec in _SKIPPING_CODECS,
        seekable=sound,
        proven=proven,
        num_frames=len(shown) if sound and proven else None,
    )


def _count_frames(index: _Index) -> int:
    if index.num_frames is None:
        index.learn([frame.pts for frame in _frames_in_order(index.path)])
    assert index.num_frames is not None
    return index.num_frames


class _Canvas:
    """The array to be filled: each wanted frame is converted once and put in every place that asked for it."""

    def __init__(self, wanted: Sequence[int], *, short_side: int | None, size: tuple[int, int] | None = None) -> None:
        self.wanted = wanted
        self.short_side = short_side
        self.size = size  # height and width of the array; by default those of the first frame put
        self.first_size: tuple[int, int] | None = None  # what the first frame asked for would have by itself
        self.image: np.ndarray | None = None
        self.missing: dict[int, list[int]] = {}  # frame number -> places in the array
        self._reformatter = VideoReformatter()

    def clear(self, num_frames: int | None) -> None:
        """Makes all frames missing again; numbers beyond the end, where it is known, mean the last frame."""
        self.missing = {}
        for place, number in enumerate(self.wanted):
            number = number if num_frames is None else min(number, num_frames - 1)
            self.missing.setdefault(number, []).append(place)

    def put(self, number: int, frame: av.VideoFrame) -> None:
        """Draws a frame wherever it is wanted."""
        places = self.missing.pop(number, None)
        if places is None:
            return
        natural = _resized(_upright_size(frame), self.short_side)
        if 0 in places:
            self.first_size = natural
        self.size = self.size or natural
        if self.image is None:
            self.image = np.empty((len(self.wanted), *self.size, 3), np.uint8)
        turns = _turns(frame)
        height, width = self.size[::-1] if turns % 2 else self.size
        # A reformatter per frame takes twice the time, and without `threads` it starts threads of its own.
        rgb = self._reformatter.reformat(frame, width, height, "rgb24", interpolation=Interpolation.BILINEAR, threads=1)
        self.image[places] = np.rot90(rgb.to_ndarray(), turns)


def _read(index: _Index, canvas: _Canvas) -> _Canvas:
    if index.by_time:
        canvas.clear(index.num_frames)
        if _read_by_time(index, canvas):
            return canvas
        index.seekable = False
        index.num_frames = None
    canvas.clear(index.num_frames)
    _read_in_order(index, canvas)
    return canvas


def _read_in_order(index: _Index, canvas: _Canvas) -> None:
    times = []
    for number, frame in enumerate(_frames_in_order(index.path)):
        canvas.put(number, frame)
        if not canvas.missing:
            return
        times.append(frame.pts)
    index.learn(times)
    for number in list(canvas.missing):  # all beyond the end
        canvas.put(number, frame)


def _read_by_time(index: _Index, canvas: _Canvas) -> bool:
    """Fills the canvas by seeking. False when anything speaks against the result."""
    try:
        with _open(index.path) as source:
            for run, (key_time, numbers) in enumerate(index.runs(sorted(canvas.missing))):
                if run or key_time != index.key_times[0]:
                    source.container.seek(key_time, stream=source.stream)
                if not _read_run(index, canvas, numbers, source=source, key_time=key_time):
                    return False
    except FFmpegError:
        return False
    return True


def _read_run(index: _Index, canvas: _Canvas, numbers: Sequence[int], *, source: _Source, key_time: int) -> bool:
    """Decodes rising frame numbers from one keyframe on. False when anything speaks against the result."""
    wanted = {int(index.times[number]): number for number in numbers}
    codec = source.stream.codec_context
    landed = False
    previous = key_time - 1
    for packet in _packets(source):
        if packet is not None:
            landed = landed or (packet.is_keyframe and packet.pts is not None and packet.pts <= key_time)
            if not landed:
                return False
            if index.skipping:
                codec.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        for frame in codec.decode(packet):
            if frame.pts is None:
                return False
            if frame.pts < key_time:  # shown before the keyframe, and made from frames that were not decoded
                continue
            # Damage is concealed with whatever was decoded before, so only decoding everything gives the same pixels.
            if frame.is_corrupt or frame.pts <= previous:
                return False
            previous = frame.pts
            if frame.pts in wanted:
                canvas.put(wanted.pop(frame.pts), frame)
        if not wanted:
            # Frames still held back may have served as references, so damage in them counts as well.
            return not any(frame.is_corrupt for frame in codec.decode(None))
    return False


def _frames_in_order(path: str) -> Iterator[av.VideoFrame]:
    with _open(path) as source:
        for packet in _packets(source):
            yield from _decode(source, packet)


@contextmanager
def _open(path: str) -> Iterator[_Source]:
    try:
        # `file:` keeps a colon in a name from naming a protocol; the whitelist keeps playlists off the network.
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except FFmpegError as error:
        raise VideoError(f"{path}: {_why_unreadable(path, error)}") from error
    with container:
        # FFmpeg also "plays" text files, as a terminal would show them.
        if container.format.name == "tty":
            raise VideoError(f"{path}: not a video, but text")
        streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
        if not streams:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            kinds = kinds.replace("video", "a cover picture")
            raise VideoError(f"{path}: no video stream, the file holds only {kinds}")
        stream = streams[0]
        if stream.codec_context is None:
            raise VideoError(f"{path}: this build of FFmpeg has no decoder for its video stream")
        # With several loader workers one thread each gives the most clips per second; frame threads also change what
        # comes out of damaged streams.
        stream.codec_context.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        yield _Source(container, stream)


def _why_unreadable(path: str, error: FFmpegError) -> str:
    if isinstance(error, OSError):
        return f"cannot be opened ({error.strerror})"
    with open(path, "rb") as file:
        is_mp4 = file.read(8)[4:] in (b"ftyp", b"mdat", b"moov", b"free", b"wide", b"skip")
    if is_mp4:
        return "MP4 without its index (moov atom), the file is truncated; copy or download it again"
    return "not a video that FFmpeg can open"


def _packets(source: _Source) -> Iterator[av.Packet | None]:
    """All packets of the stream, then None, for which a decoder gives out what it holds back."""
    try:
        for packet in source.container.demux(source.stream):
            if packet.size:  # AVI has empty packets where a frame was dropped
                yield packet
    except FFmpegError:
        pass  # what cannot be read ends the video, as the end of the file would
    yield None


def _decode(source: _Source, packet: av.Packet | None) -> list[av.VideoFrame]:
    try:
        return source.stream.codec_context.decode(packet)
    except FFmpegError:
        return []  # a damaged packet gives no frame


def _turns(frame: av.VideoFrame) -> int:
    """Quarter turns, counter-clockwise, that make a stored frame upright."""
    return round(frame.rotation / 90) % 4


def _upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    return (frame.width, frame.height) if _turns(frame) % 2 else (frame.height, frame.width)


def _resized(size: tuple[int, int], short_side: int | None) -> tuple[int, int]:
    """Height and width with the shorter side at `short_side`."""
    height, width = size
    if short_side is None:
        return size
    if height <= width:
        return short_side, round(width * short_side / height)
    return round(height * short_side / width), short_side
