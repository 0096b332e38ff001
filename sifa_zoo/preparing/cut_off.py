"""Whether a video file ends before its own structure says that it should. Nothing is decoded.

Told by: the sizes of boxes in MP4 and MOV; those of RIFF chunks in AVI, and its index of indices; in Matroska and WebM
the size of the segment or, where it is not known, that of its parts, the places that its tables name, and its duration.
MPEG-TS and PS, raw streams and GIF do not tell; FLV, ASF and others are not looked at.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from av.error import FFmpegError
from av.packet import Packet

from sifa_zoo.preparing import ebml
from sifa_zoo.preparing.parallel_map import until_stopped
from sifa_zoo.video.container import File, OpenVideo, open_video

_BOXES = {
    *(b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"mfra", b"sidx", b"ssix", b"free", b"skip", b"wide", b"pnot"),
    *(b"uuid", b"meta", b"udta", b"emsg", b"prft", b"pdin"),
}
_MOST_CHUNKS = 200_000
_AVI_HEAD = 1 << 16  # bytes in which the header of an AVI file lies
_AVI_UNKNOWN = 0xFFFFFFF0  # from here on a size was never filled in, as one of 0
_AVI_SLACK = 8  # bytes by which some writers count wrong
_SLACK_SECONDS = 0.5
# Parts of a Matroska segment that name places in it, and the way to these.
_NAMING_PLACES = {
    ebml.SEEK_HEAD: (ebml.SEEK, ebml.SEEK_POSITION),
    ebml.CUES: (ebml.CUE_POINT, ebml.CUE_TRACK_POSITIONS, ebml.CUE_CLUSTER_POSITION),
}


def why_cut_off(file: File, stop: threading.Event) -> str:
    """How much the file says it has and how much is there, if it is cut off; otherwise empty."""
    seconds = 0.0
    with file.open() as data:
        head = data.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"AVI ":
            promised = _avi_size(data, file.size)
        elif head[:4] == ebml.HEADER.to_bytes(4, "big"):
            promised = _matroska_size(data, file.size)
            seconds = _matroska_seconds(data, file.size)
        elif head[4:8] in _BOXES:
            promised = _mp4_size(data, file.size)
        else:
            return ""
    if promised > file.size:
        return f"the file says it has {promised:,} bytes, {file.size:,} are there"
    if not seconds:
        return ""
    with open_video(file) as video:
        end = max((_end(packet) for packet in until_stopped(_all_packets(video), stop)), default=0.0)
    return f"{end:.1f} of {seconds:.1f} seconds are there" if end + _SLACK_SECONDS < seconds else ""


def _mp4_size(data: BinaryIO, size: int) -> int:
    """Where the last box ends, as far as boxes are known; what follows an unknown one is not part of the video."""
    place = 0
    for _ in range(_MOST_CHUNKS):
        data.seek(place)
        head = data.read(16)
        if len(head) < 8 or head[4:8] not in _BOXES:
            break
        length, smallest = int.from_bytes(head[:4], "big"), 8
        if length == 1 and len(head) == 16:
            length, smallest = int.from_bytes(head[8:], "big"), 16
        if length < smallest:  # 0 reaches to the end of the file
            break
        place += length
        if place >= size:
            break
    return place


def _avi_size(data: BinaryIO, size: int) -> int:
    """Where the last RIFF chunk ends, or the last index that the index of indices (OpenDML) names."""
    promised = 0
    for _ in range(_MOST_CHUNKS):
        data.seek(promised)
        head = data.read(12)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] != b"RIFF" or not 0 < length < _AVI_UNKNOWN:
            break
        promised += 8 + length + length % 2
    data.seek(0)
    promised = max(promised, *_indexed(data.read(_AVI_HEAD)))
    return promised if promised > size + _AVI_SLACK else 0


def _indexed(head: bytes) -> Iterator[int]:
    """Where each index ends that the indices of indices in the header of an AVI file name."""
    yield 0  # in case there are none
    start = head.find(b"indx")
    while start >= 0:
        length, longs, _, kind, used = struct.unpack_from("<IHBBI", head.ljust(start + 32, b"\0"), start + 4)
        if longs == 4 and kind == 0:
            entries = head[start + 32 : start + 8 + length]
            for offset, count, _ in struct.iter_unpack("<QII", entries[: len(entries) // 16 * 16][: used * 16]):
                yield offset + count
        start = head.find(b"indx", start + 4)


def _matroska_size(data: BinaryIO, size: int) -> int:
    """Where the segment ends; if its size is not known, the end of the furthest part that it has or names."""
    segment = ebml.find_segment(data, size)
    if segment is None:
        return 0
    if segment.stop is not None:
        return segment.stop
    promised = 0
    for part in ebml.parts(data, segment, size):
        promised = max(promised, part.stop or 0)
        if path := _NAMING_PLACES.get(part.id):
            named = [ebml.integer(data, element) for element in ebml.descendants(data, part, *path)]
            promised = max([promised, *(segment.start + place + 1 for place in named)])
    return promised


def _matroska_seconds(data: BinaryIO, size: int) -> float:
    """The duration that a Matroska file states whose segment has no known size; 0 if none."""
    segment = ebml.find_segment(data, size)
    if segment is None or segment.stop is not None:
        return 0.0
    scale, duration = 1_000_000, 0.0
    for info in (part for part in ebml.parts(data, segment, size) if part.id == ebml.INFO):
        scale = next((ebml.integer(data, e) for e in ebml.descendants(data, info, ebml.TIMESTAMP_SCALE)), scale)
        duration = next((ebml.real(data, e) for e in ebml.descendants(data, info, ebml.DURATION)), duration)
    return duration * scale / 1e9


def _all_packets(video: OpenVideo) -> Iterator[Packet]:
    """The packets of all streams."""
    with suppress(FFmpegError):  # whatever cannot be read ends the file
        yield from video.container.demux()


def _end(packet: Packet) -> float:
    """When a packet's content is over, in seconds."""
    if packet.pts is None or packet.time_base is None:
        return 0.0
    return float((packet.pts + (packet.duration or 0)) * packet.time_base)
