"""Decodes frames from keyframes on, and checks that they are those that decoding the whole video would give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from sifa_zoo.video.container import REPORT_DAMAGE, SEEK_BY_BYTE, File, OpenVideo, open_video, packets
from sifa_zoo.video.index import Disagreement, Index, read_packets

# The first packets after a seek may lack their beginning, or hold the end of another one.
_RUN_UP = 4

# What is decoded of a packet: all of it, only references, or nothing, which keeps it from the decoder.
_Part = Literal["DEFAULT", "NONREF"] | None


@dataclass(frozen=True)
class Run:
    """Packets to decode one after another, from a keyframe on.

    Attributes:
        first: Number of the first packet.
        parts: What to decode of each packet.
        frames: The number of the frame that each packet gives, -1 if it gives none.
        first_frame: Frames shown before it may refer to frames before the keyframe, which are not decoded.
        wanted: The numbers of the frames wanted, rising.
    """

    first: int
    parts: list[_Part]
    frames: list[int]
    first_frame: int
    wanted: list[int]


def frames_at_random(
    file: File, index: Index, numbers: Sequence[int], *, lead: int = 0
) -> Iterator[tuple[int, VideoFrame]]:
    """Yields the frames of rising numbers, each with its number.

    With a `lead`, decoding starts so many keyframes earlier than it need: a stream may release references from before
    the keyframe, which a decoder that has not seen them takes for damage.

    Raises:
        Disagreement: If anything casts doubt on the frames, those already yielded included, or the index does not
            tell how to reach them.
    """
    if not index.known or index.access == "order":
        raise Disagreement
    runs = plan(index, numbers, lead=lead)
    if index.access == "direct":
        codec = index.decoder.create()
        places, sizes, checksums = index.positions, index.sizes, index.checksums
        with file.open() as data:
            for run in runs:
                of_run = slice(run.first, run.first + len(run.parts))
                found = read_packets(data, places[of_run], sizes[of_run], checksums[of_run], start=run.first)
                yield from _decode(run, codec, found)
        return
    with open_video(file) as video:
        video.codec.options = REPORT_DAMAGE
        for run in runs:
            yield from _decode(run, video.codec, _seek(run, index, video))


def plan(index: Index, numbers: Sequence[int], *, lead: int = 0) -> Iterator[Run]:
    """Splits rising frame numbers into runs."""
    frame_of = np.full(len(index.sizes), -1)
    frame_of[index.frame_packets] = np.arange(len(index.frame_packets))
    wanted = np.asarray(numbers, np.int64)
    needed = index.frame_packets[wanted]
    keys = np.minimum(
        np.searchsorted(index.key_frames, wanted, side="right"), np.searchsorted(index.keys, needed, side="right")
    )
    starts = index.keys[np.maximum(0, keys - 1 - lead)]
    start = 0
    for stop in range(1, len(wanted) + 1):
        last = int(needed[start:stop].max())
        # A run ends where the next one would start beyond all its packets: those in between need not be decoded.
        if stop < len(wanted) and starts[stop] <= last + 1:
            continue
        first, first_frame = int(starts[start]), int(index.key_frames[keys[start] - 1])
        frames = frame_of[first : last + 1].tolist()
        chosen = set((needed[start:stop] - first).tolist())
        if not index.skips:
            parts: list[_Part] = ["DEFAULT"] * len(frames)
        elif index.packed:
            parts = _packed_parts(frames, chosen)
        else:
            parts = ["NONREF"] * len(frames)
            for packet in chosen:
                parts[packet] = "DEFAULT"
        yield Run(first, parts, frames, first_frame, wanted[start:stop].tolist())
        start = stop


def _packed_parts(frames: list[int], chosen: set[int]) -> list[_Part]:
    """What to decode of packets as DivX packs them; `chosen` are those that give the frames wanted."""
    parts: list[_Part] = ["DEFAULT"] * len(frames)
    for row in _packed_rows(frames):
        # A picture that lies in the packet before its own is passed on from packet to packet, so each of them must be
        # decoded; the first that is not ends the row. Those after it must be kept from the decoder: the last packet of
        # a row holds only a placeholder, which would be taken for a picture. Any other row is decoded as a whole.
        if all(frames[packet] >= 0 for packet in row):
            needed = max((place for place, packet in enumerate(row) if packet in chosen), default=0)
            for place, packet in enumerate(row[needed + 1 :]):
                parts[packet] = None if place else "NONREF"
    return parts


def _packed_rows(frames: list[int]) -> Iterator[list[int]]:
    """Splits packets into rows: a reference, and what is shown before it."""
    row: list[int] = []
    highest = -1
    for packet, frame in enumerate(frames):
        if frame > highest:
            highest = frame
            yield row
            row = []
        row.append(packet)
    yield row


def _seek(run: Run, index: Index, video: OpenVideo) -> Iterator[Packet]:
    """Seeks the packets of a run, and numbers them."""
    number = run.first
    if number and index.container in SEEK_BY_BYTE:
        place = int(index.positions[: max(1, number - _RUN_UP)].max())
        video.container.seek(place, stream=video.stream, unsupported_byte_offset=True)
    elif number:
        shown = run.frames[0] if run.frames[0] >= 0 else run.first_frame
        video.container.seek(int(index.frame_times[shown]), stream=video.stream)
    landed = False
    for packet in packets(video):
        position = -1 if packet.pos is None else packet.pos
        same = position == index.positions[number] and packet.size == index.sizes[number]
        landed |= same
        if landed and not same:
            raise Disagreement
        if landed:
            packet.pts = number
            yield packet
            number += 1
        if number == run.first + len(run.parts):
            return
        if not landed and position > index.positions[number]:
            raise Disagreement
    raise Disagreement


def _decode(run: Run, codec: VideoCodecContext, numbered: Iterable[Packet]) -> Iterator[tuple[int, VideoFrame]]:
    """Decodes the packets of a run; yields the frames wanted, with their numbers."""
    missing, previous = set(run.wanted), run.first_frame - 1
    parts, own_frames = [*run.parts, "DEFAULT"], [*run.frames, -1]
    for packet, part, own_frame in zip(chain(numbered, [None]), parts, own_frames, strict=True):
        if part is None:
            continue
        if packet is not None:
            codec.skip_frame = part
        try:
            # None gets what the decoder still holds. Wanted frames may refer to it, so it is checked for damage, too.
            frames = codec.decode(packet)
        except FFmpegError as error:
            if own_frame >= run.first_frame:
                raise Disagreement from error
            continue
        for frame in frames:
            assert frame.pts is not None  # the number of its packet
            number = run.frames[frame.pts - run.first]
            if number < run.first_frame:
                continue
            # Damage is concealed with whatever was decoded before, so only decoding everything gives the same pixels.
            if frame.is_corrupt or number <= previous:
                raise Disagreement
            previous = number
            if number in missing:
                missing.remove(number)
                yield number, frame
    if missing:
        raise Disagreement
    depth = codec.reorder_depth
    codec.flush_buffers()
    codec.reorder_depth = depth
