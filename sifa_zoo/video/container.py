"""Opens video files with FFmpeg (PyAV): their packets, their decoder, and why a file cannot be opened.

Packets are numbered in decoding order. Before it is decoded, a packet gets its number in place of its time, so that
each frame tells which packet it comes from: see `packet_of`. Decoders use one thread: this gives the most clips per
second with several loader workers, and with frame threads damaged streams would decode differently.

No container stays open between calls, and none crosses a fork. FFmpeg's log stays off, as PyAV leaves it.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import BinaryIO

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

# FFmpeg cuts the packets of these formats out of a stream of bytes; only seeking by byte finds the same ones again.
SEEK_BY_BYTE = ("mpegts", "mpeg")
ONE_THREAD = {"thread_type": "NONE", "thread_count": 1}  # attributes of decoders
# AVFMT_FLAG_GENPTS, which PyAV sets: FFmpeg would make up missing times, and not as ffprobe does.
_GENERATE_TIMES = 1
_WEBP_ANIMATION = 2  # the flag in the header of a WebP file
_SIZE_FOLLOWS = b"\0\0\0\1"  # in place of the size of an MP4 box, which then comes after the name
_ENCRYPTED_VIDEO = re.compile(rb"stsd.{12}encv", re.DOTALL)
_MOST_BOXES = 10_000  # that may come before the index
_MOST_INDEX = 1 << 26  # bytes of an MP4's index that are searched
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
    """An open container and its video stream."""

    container: InputContainer
    stream: VideoStream

    @property
    def codec(self) -> VideoCodecContext:
        return self.stream.codec_context


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
    """Opens a file and chooses its first video stream that is not a cover picture."""
    path = file.path
    try:
        # `file:` keeps FFmpeg from taking a name with a colon for a protocol; the whitelist keeps playlists offline.
        container = av.open(
            f"file:{path}" if file.data is None else io.BytesIO(file.data),
            mode="r",
            options={"protocol_whitelist": "file"},
            metadata_errors="replace",
        )
    except FFmpegError as error:
        raise VideoError(f"{path}: {_why_unreadable(file, error)}") from error
    with container:
        container.flags &= ~_GENERATE_TIMES
        if container.format.name.startswith("mov,") and _is_encrypted(file):
            raise VideoError(f"{path}: encrypted, and FFmpeg has no key; take a copy without protection (DRM)")
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
        use_one_thread(stream.codec_context)
        yield OpenVideo(container, stream)


def use_one_thread(codec: VideoCodecContext) -> None:
    for name, value in ONE_THREAD.items():
        setattr(codec, name, value)


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


def _is_encrypted(file: File) -> bool:
    """Whether the index of an MP4 describes encrypted video (Common Encryption, ISO/IEC 23001-7)."""
    place = 0
    with file.open() as data:
        for _ in range(_MOST_BOXES):
            data.seek(place)
            head = data.read(16)
            length = int.from_bytes(head[8:] if head[:4] == _SIZE_FOLLOWS else head[:4], "big")
            if head[4:8] == b"moov":
                return _ENCRYPTED_VIDEO.search(data.read(min(length, _MOST_INDEX))) is not None
            if length < 8:
                return False
            place += length
    return False


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
