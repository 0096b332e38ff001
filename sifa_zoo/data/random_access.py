"""Decodes frames from keyframes on, and checks that they are those that decoding the whole video would give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from sifa_zoo.data.container import SEEK_BY_BYTE, File, OpenVideo, decode, open_video, packet_of, packets
from sifa_zoo.data.index import Disagreement, Index

# Decoders that can leave out frames to which no other refers; dav1d (AV1) cannot do so packet by packet.
_SKIPPING_CODECS = ("h264", "hevc", "mpeg4", "mpeg2video", "vp8", "vp9")

# The packets right after a seek may lack their beginning or hold the end of another.
_RUN_UP = 4

_Part = Literal["DEFAULT", "NONREF"]
_Run = tuple[int, int, list[int]]  # first packet, last packet, frames wanted from them


def frames_at_random(file: File, index: Index, numbers: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
    """Yields the frames of rising numbers, each with its number.

    Raises:
        Disagreement: When anything speaks against the result. What was yielded before may be wrong then.
    """
    if index.access == "direct":
        codec = index.decoder.create()
        with file.reading() as reader:
            for first, last, wanted in index.runs(numbers):
                fed = ((number, index.read_packet(reader, number)) for number in range(first, last + 1))
                yield from _decode_run(index, (first, last, wanted), codec=codec, fed=fed)
        return
    with open_video(file) as video:
        for run in index.runs(numbers):
            yield from _decode_run(index, run, codec=video.codec, fed=_seek(index, run, video))


def _seek(index: Index, run: _Run, video: OpenVideo) -> Iterator[tuple[int, Packet]]:
    """The packets of a run, found again by a seek to their place."""
    number, last, _ = run
    if number and index.container in SEEK_BY_BYTE:
        place = int(index.positions[: max(1, number - _RUN_UP)].max())
        video.container.seek(place, stream=video.stream, unsupported_byte_offset=True)
    elif number:
        key_frame = index.key_frames[np.searchsorted(index.keys, number)]
        video.container.seek(int(index.frame_times[key_frame]), stream=video.stream)
    landed = False
    for packet in packets(video):
        position = -1 if packet.pos is None else packet.pos
        same = position == index.positions[number] and packet.size == index.sizes[number]
        landed |= same
        if landed and not same:
            raise Disagreement
        if landed:
            yield number, packet
            number += 1
        if number > last:
            return
        if not landed and position > index.positions[number]:
            raise Disagreement
    raise Disagreement


def _decode_run(
    index: Index, run: _Run, *, codec: VideoCodecContext, fed: Iterable[tuple[int, Packet]]
) -> Iterator[tuple[int, VideoFrame]]:
    first, _, wanted = run
    frame_of = _frames_by_packet(index)
    missing = set(index.frame_packets[wanted].tolist())
    # Frames shown before the keyframe are made from frames that were not decoded.
    floor = int(index.key_frames[np.searchsorted(index.keys, first)])
    previous = floor - 1
    plan = _plan(index, missing, frame_of, run=run)

    def check(frames: list[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        nonlocal previous
        for frame in frames:
            number = frame_of[packet_of(frame)]
            if number < floor:
                continue
            # Damage is concealed with whatever was decoded before, so only decoding everything gives the same pixels.
            if frame.is_corrupt or number <= previous:
                raise Disagreement
            previous = number
            if packet_of(frame) in missing:
                missing.remove(packet_of(frame))
                yield number, frame

    for packet_number, packet in fed:
        part = plan[packet_number - first]
        if part is None:
            continue
        codec.skip_frame = part
        frames = decode(codec, packet, packet_number)
        if frames is None and frame_of[packet_number] >= floor:
            raise Disagreement
        yield from check(frames or [])
    # The decoder gives out what it still holds back. It may have served as reference, so damage in it counts as well.
    yield from check(decode(codec, None) or [])
    if missing:
        raise Disagreement
    depth = codec.reorder_depth
    codec.flush_buffers()
    codec.reorder_depth = depth


def _plan(index: Index, wanted: set[int], frame_of: list[int], *, run: _Run) -> list[_Part | None]:
    """What to decode of each packet of a run: all, references only, or None: keep it from the decoder."""
    first, last, _ = run
    if index.codec not in _SKIPPING_CODECS:
        return ["DEFAULT"] * (last + 1 - first)
    if not index.packed:
        return ["DEFAULT" if packet in wanted else "NONREF" for packet in range(first, last + 1)]
    plan: list[_Part | None] = ["DEFAULT"] * (last + 1 - first)
    for row in _packed_rows(frame_of, first, last):
        # A picture in the packet before its own is handed on from packet to packet, each of which must be decoded
        # for that; the first that is not ends it. What then comes must be kept from the decoder, as the last packet of
        # the row holds a mere filling, which it would take for a picture. Rows with anything else are decoded whole.
        if all(frame_of[packet] >= 0 for packet in row):
            needed = max((place for place, packet in enumerate(row) if packet in wanted), default=0)
            for place, packet in enumerate(row[needed + 1 :]):
                plan[packet - first] = None if place else "NONREF"
    return plan


def _packed_rows(frame_of: list[int], first: int, last: int) -> Iterator[list[int]]:
    """Splits packets into rows of a reference and of what is shown before it."""
    row: list[int] = []
    highest = -1
    for packet in range(first, last + 1):
        if frame_of[packet] > highest:
            highest = frame_of[packet]
            yield row
            row = []
        row.append(packet)
    yield row


def _frames_by_packet(index: Index) -> list[int]:
    frame_of = np.full(len(index.sizes), -1)
    frame_of[index.frame_packets] = np.arange(index.num_frames)
    return frame_of.tolist()
