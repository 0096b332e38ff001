"""What the index of an MP4 or MOV file says, as FFmpeg reads it, that PyAV does not pass on.

A file consists of boxes: size, kind, body. The index is the body of the box `moov`, and holds other boxes.

Source: ISO/IEC 14496-12, 4.2 (boxes), 8.5.2 (descriptions of samples), 12.1.4 (`clap`); ISO/IEC 23001-7 (`encv`).
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO

_ENCRYPTED_VIDEO = re.compile(rb"stsd.{12}encv", re.DOTALL)
_MOST_BOXES = 10_000  # that are looked at
_MOST_BYTES = 1 << 26  # of an index
_DESCRIPTION_BYTES = 78  # of a video track, before the boxes in it


def read_index(data: BinaryIO, num_bytes: int) -> bytes:
    """The index of a file of so many bytes; empty if it has none."""
    return next((data.read(min(size, _MOST_BYTES)) for kind, size in _boxes(data, num_bytes) if kind == b"moov"), b"")


def is_encrypted(index: bytes) -> bool:
    """Whether video is encrypted."""
    return _ENCRYPTED_VIDEO.search(index) is not None


def clean_aperture(index: bytes, track: int, *, height: int, width: int) -> tuple[int, int, int, int]:
    """What players cut off the pictures of a track: pixels at their left, top, right and bottom."""
    nothing = (0, 0, 0, 0)
    if b"clap" not in index:
        return nothing
    tracks = [body for kind, body in _inner_boxes(index) if kind == b"trak"]
    body = b"".join(tracks[track : track + 1])
    for kind in (b"mdia", b"minf", b"stbl", b"stsd"):
        body = dict(_inner_boxes(body)).get(kind, b"")
    for _, description in _inner_boxes(body[8:]):
        values = dict(_inner_boxes(description[_DESCRIPTION_BYTES:])).get(b"clap", b"")
        numbers = struct.unpack_from(">8i", values.ljust(32, b"\0"))
        if min(numbers[1::2]) < 1:
            continue
        shown_width, shown_height, right, down = (Fraction(*numbers[at : at + 2]) for at in (0, 2, 4, 6))
        left, top = (width - shown_width) / 2 + right, (height - shown_height) / 2 + down
        crop = (round(left), round(top), round(width - left - shown_width), round(height - top - shown_height))
        if min(crop) >= 0 and min(shown_width, shown_height) >= 1:
            return crop
    return nothing


def _boxes(data: BinaryIO, num_bytes: int) -> Iterator[tuple[bytes, int]]:
    """The kind of each box and the size of its body, at the beginning of which `data` is then."""
    place = 0
    for _ in range(_MOST_BOXES):
        data.seek(place)
        head = data.read(8)
        if len(head) < 8:
            return
        size, start = int.from_bytes(head[:4], "big"), 8
        if size == 1:
            size, start = int.from_bytes(data.read(8), "big"), 16
        size = min(size or num_bytes, num_bytes - place)  # 0: to the end
        if size < start:
            return
        yield head[4:], size - start
        place += size


def _inner_boxes(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes in the body of another, each with its own body."""
    with io.BytesIO(body) as data:
        for kind, size in _boxes(data, len(body)):
            yield kind, data.read(size)
