"""Opens video files with FFmpeg (PyAV): their packets, their decoder, and why a file cannot be opened.

Packets are numbered in decoding order. Before it is decoded, a packet gets its number in place of its time, so that
each frame tells which packet it comes from: see `packet_of`. Decoders use one thread: this gives the most clips per
second with several loader workers, and with frame threads damaged streams would decode differently.

No container stays open between calls, and none crosses a fork. FFmpeg's log stays off, as PyAV leaves it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, BinaryIO

import av
from av.codec.context import Flags
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from sifa_zoo.video.mp4_index import clean_aperture, is_encrypted, read_index

# FFmpeg cuts the packets of these formats out of a stream of bytes; only seeking by byte finds the same ones again.
SEEK_BY_BYTE = ("mpegts", "mpeg")
# Attributes of decoders: one thread, and cropping to the pixel.
ATTRIBUTES: dict[str, Any] = {"thread_type": "NONE", "thread_count": 1, "flags": Flags.unaligned}
REPORT_DAMAGE = {"err_detect": "explode"}  # option of decoders: raise where they would conceal
_NUM_PROBED = 1000  # packets by which to see whether streams are empty
_DEFAULT_BONUS = 5_000_000  # pixels by which a stream may be smaller than others and be chosen as the default
# AVFMT_FLAG_GENPTS, which PyAV sets: FFmpeg would make up missing times, and not as ffprobe does.
_GENERATE_TIMES = 1
_WEBP_ANIMATION = 2  # the flag in the header of a WebP file
_MP4_BOXES = (b"ftyp", b"mdat", b"moov", b"free", b"wide", b"skip")  # with which an MP4 or MOV file may begin


class VideoError(ValueError):
    """A file that cannot be read as a video; the message begins with its path."""

    exit_code = 1


class NamedBytes(bytes):
    """The bytes of a video file, with a name for error messages."""

    name: str

    def __new__(cls, data: bytes, name: str) -> NamedBytes:
        named = super().__new__(cls, data)
        named.name = name
        return named


@dataclass(frozen=True)
class File:
    """A video file in its present state, or the bytes of one."""

    path: str
    size: int
    mtime_ns: int
    data: bytes | None = field(default=None, repr=False)

    def open(self) -> BinaryIO:
        """Opens the file for reading its bytes from any place.

        Raises:
            VideoError: If it cannot be opened.
        """
        if self.data is not None:
            return io.BytesIO(self.data)
        try:
            return open(self.path, "rb", buffering=0)
        except OSError as error:
            raise VideoError(f"{self.path}: cannot be opened ({error})") from error


@dataclass(frozen=True)
class OpenVideo:
    """An open container, the video stream that was chosen, and how many there are.

    `crop` is what players cut off a stored picture: pixels at its left, top, right and bottom.
    """

    container: InputContainer
    stream: VideoStream
    num_streams: int
    crop: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def codec(self) -> VideoCodecContext:
        return self.stream.codec_context

    @property
    def sample_aspect_ratio(self) -> float:
        """Width of a stored pixel, if its height is 1."""
        return float(self.stream.sample_aspect_ratio or 1)


def find_file(path: str | os.PathLike[str] | bytes) -> File:
    """The file at a path, or the one that the bytes are."""
    if isinstance(path, bytes):
        name = path.name if isinstance(path, NamedBytes) else "<bytes>"
        if not path:
            raise VideoError(f"{name}: the file is empty")
        return File(name, len(path), 0, path)
    path = os.fspath(path)
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be opened ({error})"
        raise VideoError(f"{path}: {reason}") from error
    if status.st_size == 0:
        raise VideoError(f"{path}: the file is empty")
    return File(path, status.st_size, status.st_mtime_ns)


@contextmanager
def open_video(file: File) -> Iterator[OpenVideo]:
    """Opens a file and chooses the video stream that FFmpeg would.

    Raises:
        VideoError: If it cannot be opened, or has no video.
    """
    path = file.path
    try:
        container = _open_container(file)
    except FFmpegError as error:
        raise VideoError(f"{path}: {_why_unreadable(file, error)}") from error
    with container:
        container.flags &= ~_GENERATE_TIMES
        index = _mp4_index(file) if container.format.name.startswith("mov,") else b""
        if is_encrypted(index):
            raise VideoError(f"{path}: encrypted, and FFmpeg has no key; take a copy without protection (DRM)")
        # FFmpeg also "plays" text files, as a terminal would show them.
        if container.format.name == "tty":
            raise VideoError(f"{path}: not a video, but text")
        streams = video_streams(container)
        if len(streams) > 1:
            filled = _filled_streams(file)
            streams.sort(key=lambda stream: stream.index not in filled)
        if not streams:
            if not container.streams:
                raise VideoError(f"{path}: nothing in it can be read, its index is damaged")
            kinds = ", ".join(sorted({stream.type for stream in container.streams})).replace("video", "a cover picture")
            raise VideoError(f"{path}: no video stream, the file holds only {kinds}")
        stream = streams[0]
        if stream.codec_context is None:
            raise VideoError(f"{path}: this build of FFmpeg has no decoder for its video stream")
        prepare(stream.codec_context)
        crop = clean_aperture(index, stream.index, height=stream.height, width=stream.width)
        yield OpenVideo(container, stream, len(streams), crop)


def _open_container(file: File) -> InputContainer:
    # `file:` keeps FFmpeg from taking a name with a colon for a protocol; the whitelist keeps playlists offline.
    return av.open(
        f"file:{file.path}" if file.data is None else io.BytesIO(file.data),
        mode="r",
        options={"protocol_whitelist": "file"},
        metadata_errors="replace",
    )


def _filled_streams(file: File) -> set[int]:
    """The video streams that have packets among the first ones; FFmpeg prefers them."""
    filled = set()
    with _open_container(file) as container, suppress(FFmpegError):
        for packet in islice(container.demux(*container.streams.video), _NUM_PROBED):
            if packet.size:
                filled.add(packet.stream_index)
    return filled


def video_streams(container: InputContainer) -> list[VideoStream]:
    """The video streams, without cover pictures; FFmpeg prefers the default one, or else the largest."""

    def score(stream: VideoStream) -> int:
        size = 0 if stream.codec_context is None else stream.height * stream.width
        return size + bool(stream.disposition & Disposition.default) * _DEFAULT_BONUS

    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    return sorted(streams, key=score, reverse=True)


def prepare(codec: VideoCodecContext) -> None:
    """Sets what all decoders have in common."""
    for name, value in ATTRIBUTES.items():
        setattr(codec, name, value)


def _mp4_index(file: File) -> bytes:
    with file.open() as data:
        return read_index(data, file.size)


def _why_unreadable(file: File, error: FFmpegError) -> str:
    if isinstance(error, OSError):
        return f"cannot be opened ({error.strerror})"
    with file.open() as data:
        is_mp4 = data.read(8)[4:] in _MP4_BOXES
    if is_mp4:
        return "MP4 without its index (moov atom), the file is truncated; copy or download it again"
    return "not a video that FFmpeg can open"


def why_no_frame(file: File, codec: str) -> str:
    """Why a file that can be opened gives no frame."""
    with file.open() as data:
        head = data.read(21)
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and head[20] & _WEBP_ANIMATION:
        return "FFmpeg cannot decode animated WebP; save it as GIF or MP4, or its frames as a folder of pictures"
    return f"not one frame of its {codec} stream can be decoded, the file is damaged"


def packets(video: OpenVideo) -> Iterator[Packet]:
    """All packets of the video stream."""
    try:
        for packet in video.container.demux(video.stream):
            if packet.size:  # AVI has empty packets where a frame was dropped
                yield packet
    except FFmpegError:
        pass  # whatever cannot be read ends the video, as the end of the file does


def decode(codec: VideoCodecContext, packet: Packet | None) -> list[VideoFrame] | None:
    """Decodes a packet, or with None what the decoder still holds. None if the packet cannot be decoded."""
    try:
        return codec.decode(packet)
    except FFmpegError:
        return None


def packet_of(frame: VideoFrame) -> int:
    """The number of the packet that a frame comes from."""
    assert frame.pts is not None
    return frame.pts


def frames_in_order(file: File) -> Iterator[tuple[VideoFrame | None, int | None]]:
    """All frames as the decoder puts them out, each with its packet's own time; None for a packet it cannot decode."""
    times: list[int | None] = []
    with open_video(file) as video:
        for packet in chain(packets(video), [None]):  # None gets what the decoder still holds
            if packet is not None:
                times.append(packet.pts)
                packet.pts = len(times) - 1
            frames = decode(video.codec, packet)
            if frames is None and packet is not None:
                yield None, None
            for frame in frames or []:
                yield frame, times[packet_of(frame)]
