"""Walks the elements of Matroska and WebM files (EBML, RFC 8794 and 9559), without decoding anything.

An element is an identifier, a size, and content, which may be further elements. Reads are small, and there is a limit
to their number, so that no file can make the walk endless.
"""

from __future__ import annotations

import math
import struct
import threading
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO, NamedTuple

from sifa_zoo.preparing.parallel_map import until_stopped
from sifa_zoo.video.container import File

HEADER = 0x1A45DFA3
SEGMENT = 0x18538067
SEEK_HEAD, SEEK, SEEK_POSITION = 0x114D9B74, 0x4DBB, 0x53AC
INFO, TIMESTAMP_SCALE, DURATION = 0x1549A966, 0x2AD7B1, 0x4489
CUES, CUE_POINT, CUE_TRACK_POSITIONS, CUE_CLUSTER_POSITION = 0x1C53BB6B, 0xBB, 0xB7, 0xF1
CLUSTER = 0x1F43B675
_TRACKS, _TAGS, _CHAPTERS, _ATTACHMENTS, _VOID, _CRC = 0x1654AE6B, 0x1254C367, 0x1043A770, 0x1941A469, 0xEC, 0xBF
_IN_SEGMENT = {SEEK_HEAD, INFO, CUES, CLUSTER, _TRACKS, _TAGS, _CHAPTERS, _ATTACHMENTS, _VOID, _CRC}
_TIMESTAMP, _SILENT_TRACKS, _POSITION, _PREVIOUS_SIZE, _SIMPLE_BLOCK, _BLOCK_GROUP = (
    0xE7,
    0x5854,
    0xA7,
    0xAB,
    0xA3,
    0xA0,
)
_IN_CLUSTER = {_TIMESTAMP, _SILENT_TRACKS, _POSITION, _PREVIOUS_SIZE, _SIMPLE_BLOCK, _BLOCK_GROUP, 0xAF, _VOID, _CRC}
_CRC_HEAD = bytes([_CRC, 0x84])  # the checksum of an element is the first one in it, with four bytes
_MOST_ELEMENTS = 1_000_000
_MOST_BYTES = 1 << 20  # of an element that are searched
_BLOCK = 1 << 20
_BROKEN = "the structure of the file breaks at byte {:,}"


class Element(NamedTuple):
    """An identifier, and where the content lies in the file; `stop` is None where its size is not known."""

    id: int
    start: int
    stop: int | None


def elements(data: BinaryIO, start: int, stop: int) -> Iterator[Element]:
    """The elements one after the other, as far as they can be told; the last one may end beyond `stop`."""
    for _ in range(_MOST_ELEMENTS):
        if start >= stop:
            return
        data.seek(start)
        head = data.read(12)
        id_length, id = _number(head, keep_marker=True)
        size_length, size = _number(head[id_length:], keep_marker=False)
        if not 1 <= id_length <= 4 or not size_length:
            return
        begin = start + id_length + size_length
        unknown = size == (1 << 7 * size_length) - 1
        yield Element(id, begin, None if unknown else begin + size)
        if unknown:
            return
        start = begin + size


def descendants(data: BinaryIO, element: Element, *path: int) -> Iterator[Element]:
    """The elements that lie in this one behind a path of identifiers, the last of which is their own."""
    if not path:
        yield element
        return
    if element.stop is None:
        return
    for child in elements(data, element.start, min(element.stop, element.start + _MOST_BYTES)):
        if child.id == path[0]:
            yield from descendants(data, child, *path[1:])


def integer(data: BinaryIO, element: Element) -> int:
    """The content of an element as a whole number."""
    return int.from_bytes(_content(data, element), "big")


def real(data: BinaryIO, element: Element) -> float:
    """The content of an element as a number; 0 if it is none."""
    content = _content(data, element)
    value: float = struct.unpack({4: ">f", 8: ">d"}[len(content)], content)[0] if len(content) in (4, 8) else 0.0
    return value if math.isfinite(value) else 0.0


def find_segment(data: BinaryIO, size: int) -> Element | None:
    """The segment of a file of this size, which holds everything but the header."""
    return next((element for element in islice(elements(data, 0, size), 8) if element.id == SEGMENT), None)


def parts(data: BinaryIO, segment: Element, size: int) -> Iterator[Element]:
    """The elements of a segment in a file of this size, up to the first one that does not belong there."""
    for element in elements(data, segment.start, min(segment.stop or size, size)):
        if element.id not in _IN_SEGMENT:
            return
        yield element


def why_damaged(file: File, stop: threading.Event) -> str:
    """Where the structure of a Matroska file breaks, or how many clusters lack their checksum; empty if all is well."""
    with file.open() as data:
        segment = find_segment(data, file.size) if data.read(4) == HEADER.to_bytes(4, "big") else None
        if segment is None:
            return ""
        reached = segment.start
        num_clusters = num_wrong = 0
        for part in until_stopped(parts(data, segment, file.size), stop):
            if part.stop is None or part.stop > file.size:
                return ""  # live, or cut off, which `cut_off` tells
            if part.id == CLUSTER:
                if (reached := _whole_until(data, part)) < part.stop:
                    return _BROKEN.format(reached)
                num_clusters += 1
                num_wrong += not _has_its_checksum(data, part)
            reached = part.stop
    if segment.stop is not None and reached < min(segment.stop, file.size):
        return _BROKEN.format(reached)
    return f"{num_wrong} of {num_clusters} clusters do not have the checksum that they state" if num_wrong else ""


def _whole_until(data: BinaryIO, cluster: Element) -> int:
    """Up to where a cluster consists of what clusters consist of; its end if nobody can tell."""
    assert cluster.stop is not None
    reached = cluster.start
    for element in elements(data, cluster.start, cluster.stop):
        if element.stop is None:
            return cluster.stop
        if element.id not in _IN_CLUSTER or element.stop > cluster.stop:
            break
        reached = element.stop
    return reached


def _content(data: BinaryIO, element: Element) -> bytes:
    """The content of a small element."""
    data.seek(element.start)
    return data.read(min(8, (element.stop or element.start) - element.start))


def _has_its_checksum(data: BinaryIO, element: Element) -> bool:
    assert element.stop is not None
    data.seek(element.start)
    head = data.read(6)
    if head[:2] != _CRC_HEAD:
        return True
    checksum, place = 0, element.start + 6
    while place < element.stop:
        block = data.read(min(_BLOCK, element.stop - place))
        if not block:
            return True  # the file has become shorter meanwhile
        checksum, place = zlib.crc32(block, checksum), place + len(block)
    return checksum == int.from_bytes(head[2:], "little")


def _number(data: bytes, *, keep_marker: bool) -> tuple[int, int]:
    """Length and value of a number of variable length, whose first bit that is set tells the length; 0, 0 for none."""
    length = 9 - data[0].bit_length() if data and data[0] else 0
    if not length or len(data) < length:
        return 0, 0
    value = int.from_bytes(data[:length], "big")
    return length, value if keep_marker else value & ((1 << 7 * length) - 1)
