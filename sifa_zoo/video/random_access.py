"""Decodes frames from keyframes on, and checks that they are those that decoding the whole video would give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from sifa_zoo.video.container import SEEK_BY_BYTE, File, OpenVideo, decode, open_video, packet_of, packets
from sifa_zoo.video.index import Disagreement, Index, Run

# Decoders that can leave out frames to which no other refers; dav1d (AV1) cannot do so packet by packet.
_SKIPPING_CODECS = ("h264", "hevc", "mpeg4", "mpeg2video", "vp8", "vp9")

# The first packets after a seek may lack their beginning, or hold the end of another one.
_RUN_UP = 4

_Part = Literal["DEFAULT", "NONREF"]


def frames_at_random(file: File, index: Index, numbers: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
    """Yields the frames of rising numbers, each with its number.

    Raises:
        Disagreement: If anything casts doubt on the frames, those already yielded included.
    """
    frame_of = index.frames_by_packet()
    if index.access == "direct":
        codec = index.decoder.create()
        with file.reading() as reader:
            for run in index.runs(numbers):
                read = ((number, index.read_packet(reader, number)) for number in range(run.first, run.last + 1))
                yield from _decode_run(index, run, frame_of, codec=codec, numbered=read)
        return
    with open_video(file) as video:
        for run in index.runs(numbers):
            yield from _decode_run(index, run, frame_of, codec=video.codec, numbered=_seek(index, run, video))


def _seek(index: Index, run: Run, video: OpenVideo) -> Iterator[tuple[int, Packet]]:
    """Seeks the packets of a run; yields them with their numbers."""
    number = run.first
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
        if number > run.last:
            return
        if not landed and position > index.positions[number]:
            raise Disagreement
    raise Disagreement


def _decode_run(
    index: Index,
    run: Run,
    frame_of: list[int],
    *,
    codec: VideoCodecContext,
    numbered: Iterable[tuple[int, Packet]],
) -> Iterator[tuple[int, VideoFrame]]:
    """Decodes the packets of a run, each given with its number; yields the frames wanted."""
    checker = _RunChecker(index, run, frame_of)
    plan = _plan(index, run, frame_of)
    for number, packet in numbered:
        part = plan[number - run.first]
        if part is None:
            continue
        codec.skip_frame = part
        frames = decode(codec, packet, number)
        if frames is None and frame_of[number] >= checker.first:
            raise Disagreement
        yield from checker.accept(frames or [])
    # What the decoder still holds may be what wanted frames refer to, so it is checked for damage as well.
    yield from checker.accept(decode(codec, None) or [])
    if checker.missing:
        raise Disagreement
    depth = codec.reorder_depth
    codec.flush_buffers()
    codec.reorder_depth = depth


class _RunChecker:
    """Checks what the decoder puts out for a run, and picks out the frames wanted."""

    def __init__(self, index: Index, run: Run, frame_of: list[int]) -> None:
        self.missing = set(run.wanted)
        # Frames shown before this one may refer to frames before the keyframe, which are not decoded.
        self.first = int(index.key_frames[np.searchsorted(index.keys, run.first)])
        self._previous = self.first - 1
        self._frame_of = frame_of

    def accept(self, frames: list[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        """Yields those of the frames that are wanted, with their numbers.

        Raises:
            Disagreement: If a frame is damaged or out of order.
        """
        for frame in frames:
            number = self._frame_of[packet_of(frame)]
            if number < self.first:
                continue
            # Damage is concealed with whatever was decoded before, so only decoding everything gives the same pixels.
            if frame.is_corrupt or number <= self._previous:
                raise Disagreement
            self._previous = number
            if number in self.missing:
                self.missing.remove(number)
                yield number, frame


def _plan(index: Index, run: Run, frame_of: list[int]) -> list[_Part | None]:
    """What to decode of each packet of a run: all of it, only references, or None to keep it from the decoder."""
    num_packets = run.last + 1 - run.first
    if index.codec not in _SKIPPING_CODECS:
        return ["DEFAULT"] * num_packets
    wanted = set(index.frame_packets[run.wanted].tolist())
    if not index.packed:
        return ["DEFAULT" if packet in wanted else "NONREF" for packet in range(run.first, run.last + 1)]
    plan: list[_Part | None] = ["DEFAULT"] * num_packets
    for row in _packed_rows(frame_of, run):
        # A picture that lies in the packet before its own is passed on from packet to packet, so each of them must be
        # decoded; the first that is not ends the row. Those after it must be kept from the decoder: the last packet of
        # a row holds only a placeholder, which would be taken for a picture. Any other row is decoded as a whole.
        if all(frame_of[packet] >= 0 for packet in row):
            needed = max((place for place, packet in enumerate(row) if packet in wanted), default=0)
            for place, packet in enumerate(row[needed + 1 :]):
                plan[packet - run.first] = None if place else "NONREF"
    return plan


def _packed_rows(frame_of: list[int], run: Run) -> Iterator[list[int]]:
    """Splits packets into rows: a reference, and what is shown before it."""
    row: list[int] = []
    highest = -1
    for packet in range(run.first, run.last + 1):
        if frame_of[packet] > highest:
            highest = frame_of[packet]
            yield row
            row = []
        row.append(packet)
    yield row
