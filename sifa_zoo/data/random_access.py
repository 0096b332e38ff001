"""Decodes frames of a video from keyframes on, and checks that they are the frames that decoding everything would give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from sifa_zoo.data.container import File, Source, decode, open_video, packets
from sifa_zoo.data.index import Index

# Decoders that can leave out frames to which no other refers; dav1d (AV1) cannot do so packet by packet.
_SKIPPING_CODECS = ("h264", "hevc", "mpeg4", "mpeg2video", "vp8", "vp9")

# The packets right after a seek may lack their beginning or hold the end of another.
_RUN_UP = 4

_Run = tuple[int, int, list[int]]  # first packet, last packet, frames wanted from them


class Disagreement(Exception):
    """The file does not behave as its index says, so its frames must be decoded in order."""


def frames_at_random(file: File, index: Index, numbers: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
    """Yields the frames of rising numbers, each with its number.

    Raises:
        Disagreement: When anything speaks against the result. What was yielded before may be wrong then.
    """
    if index.access == "direct":
        codec = index.create_decoder()
        with file.reading() as reader:
            for first, last, wanted in index.runs(numbers):
                fed = ((number, index.read_packet(reader, number)) for number in range(first, last + 1))
                yield from _decode_run(index, (first, last, wanted), codec=codec, fed=fed)
        return
    with open_video(file) as source:
        for run in index.runs(numbers):
            yield from _decode_run(index, run, codec=source.codec, fed=_seek(index, run, source))


def _seek(index: Index, run: _Run, source: Source) -> Iterator[tuple[int, Packet]]:
    """The packets of a run, found again by a seek to their place."""
    number, last, _ = run
    if number:
        place = int(index.positions[: max(1, number - _RUN_UP)].max())
        source.container.seek(place, stream=source.stream, unsupported_byte_offset=True)
    landed = False
    for packet in packets(source):
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
    skipping = index.codec in _SKIPPING_CODECS
    whole = _with_packed(index, missing, frame_of) if index.packed else frozenset(missing)

    def check(frames: list[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        nonlocal previous
        for frame in frames:
            number = frame_of[frame.pts]
            if number < floor:
                continue
            # Damage is concealed with whatever was decoded before, so only decoding everything gives the same pixels.
            if frame.is_corrupt or number <= previous:
                raise Disagreement
            previous = number
            if frame.pts in missing:
                missing.remove(frame.pts)
                yield number, frame

    for packet_number, packet in fed:
        if skipping:
            codec.skip_frame = "DEFAULT" if packet_number in whole else "NONREF"
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


def _with_packed(index: Index, wanted: set[int], frame_of: list[int]) -> frozenset[int]:
    """The packets that must be decoded whole: each picture packed into another packet is handed on by those between."""
    whole: set[int] = set()
    chain: list[int] = []  # packets since the last reference
    highest = -1
    for packet, frame in enumerate(frame_of):
        if frame > highest:
            highest = frame
            chain = []
        chain.append(packet)
        if packet in wanted:
            whole.update(chain)
    return frozenset(whole)


def _frames_by_packet(index: Index) -> list[int]:
    frame_of = np.full(len(index.sizes), -1)
    frame_of[index.frame_packets] = np.arange(index.num_frames)
    return frame_of.tolist()
