"""What is known of a video file: its packets, which of them gives which frame, and where decoding may start.

`scan` makes an index from the packets of a file. For files whose times can be relied on, it then says which packet
gives which frame; for all others, the index learns this when the whole file is decoded for the first time.

Indices are kept in memory and on disk: see `cache`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from numpy.typing import ArrayLike

from sifa_zoo.video.container import SEEK_BY_BYTE, packet_of
from sifa_zoo.video.decoder_settings import DecoderSettings
from sifa_zoo.video.scaling import Display

NO_TIME = -(2**63)
# Steps of a clock, in seconds, that no video takes: it was set anew. FFmpeg allows as much ahead.
MOST_BACK, _MOST_AHEAD = 0.5, 10

# How packets are reached: "direct" reads them at their places in the file, "seek" lets FFmpeg seek, by byte or by time,
# "order" decodes from the start.
Access = Literal["direct", "seek", "order"]


class Disagreement(Exception):
    """The file does not behave as its index says, so its frames must be decoded in order."""


@dataclass
class Index:
    """What is known of a file. Packets are numbered in decoding order, frames in presentation order."""

    container: str
    codec: str
    decoder: DecoderSettings
    num_streams: int  # of video, without cover pictures
    stored_size: tuple[int, int]  # height and width of the first frame
    display: Display  # of the first frame, and so of all
    transfer: str  # of brightness to values, if it is that of HDR: PQ or HLG
    fps: float
    time_base: tuple[int, int]
    access: Access
    known: bool  # `frame_packets` and `frame_times` are those of the frames that the decoder puts out
    whole: bool  # no packet is missing, as far as headers tell
    skips: bool  # frames to which no other refers can be left out
    packed: bool  # MPEG-4 as DivX packs it into AVI: a packet may hold two pictures, the second shown by a later packet
    num_corrupt: int  # packets that are marked as damaged or cannot be decoded
    positions: np.ndarray = field(repr=False)  # of packets in the file, int64
    sizes: np.ndarray = field(repr=False)  # of packets in bytes, int64
    checksums: np.ndarray = field(repr=False)  # of packets, CRC-32
    keys: np.ndarray = field(repr=False)  # packets at which decoding can start, rising
    key_frames: np.ndarray = field(repr=False)  # for each of them the first frame that is right from there on
    frame_packets: np.ndarray = field(repr=False)  # the packet that gives each frame
    frame_times: np.ndarray = field(repr=False)  # in units of `time_base`, or NO_TIME
    num_decoded: int = 0  # frames decoded from the start by reads that did not reach the end

    @property
    def num_frames(self) -> int:
        return len(self.frame_packets)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of all frames, as they are shown."""
        return self.display.size(*self.stored_size)

    @property
    def random_access(self) -> bool:
        return self.known and self.access != "order"

    @property
    def seconds(self) -> np.ndarray:
        """Times of all frames, float64; NaN where the file has none."""
        numerator, denominator = self.time_base
        times = self.frame_times.astype(np.float64) * numerator / denominator
        return np.where(self.frame_times == NO_TIME, np.nan, times)

    @property
    def variable_rate(self) -> bool:
        """Whether some distance between frames differs from the median by more than a tenth and one unit of time."""
        if NO_TIME in self.frame_times or self.num_frames < 3:
            return False
        steps = np.diff(self.frame_times)
        usual = int(np.median(steps))
        return bool(np.abs(steps - usual).max() > (max(1, usual // 10) if usual >= 4 else 0))

    def distrust(self) -> None:
        """Gives up random access: something in the file is not as it seemed."""
        self.access = "order"
        self.known = False

    def learn(self, decoded: Pass) -> None:
        """Takes over what decoding the whole file showed."""
        self.num_corrupt = decoded.num_corrupt
        self.frame_packets = np.array(decoded.packets, np.int64)
        self.frame_times = _continued(np.array(decoded.times, np.int64), self.time_base, self.container)
        frame_of = dict(zip(decoded.packets, range(len(decoded.packets)), strict=True))
        marked = set(self.keys.tolist())
        keys = [(packet, frame_of[packet]) for packet in decoded.keys if packet in marked and packet]
        # The pictures packed around a keyframe can only be told apart if every packet gives a frame.
        keys = [(0, 0), *(sorted(keys) if not self.packed or len(frame_of) == len(self.sizes) else [])]
        self.keys, self.key_frames = np.array(keys, np.int64).T
        rising = (np.diff(self.key_frames) >= 0).all()
        if len(frame_of) < self.num_frames or decoded.num_corrupt or not rising or not self.whole:
            self.access = "order"
        self.fps = average_rate(self.frame_times, self.time_base) or self.fps
        self.known = True


class Pass:
    """Notes what comes out while a whole file is decoded."""

    def __init__(self) -> None:
        self.packets: list[int] = []
        self.times: list[int] = []
        self.keys: list[int] = []
        self.num_corrupt = 0
        self._last_pts = self._last_dts = NO_TIME
        self._faulty_pts = self._faulty_dts = 0

    def add(self, frame: VideoFrame, pts: int | None) -> None:
        self.packets.append(packet_of(frame))
        self.times.append(self._best_effort(pts, frame.dts))
        self.num_corrupt += frame.is_corrupt
        if frame.key_frame:
            self.keys.append(packet_of(frame))

    def _best_effort(self, pts: int | None, dts: int | None) -> int:
        """A frame's time as FFmpeg guesses it: by whichever of the two clocks has gone back less often so far."""
        if dts is not None:
            self._faulty_dts += dts <= self._last_dts
            self._last_dts = dts
        elif pts is not None:
            self._last_dts = pts
        if pts is not None:
            self._faulty_pts += pts <= self._last_pts
            self._last_pts = pts
        elif dts is not None:
            self._last_pts = dts
        if pts is not None and (dts is None or self._faulty_pts <= self._faulty_dts):
            return pts
        return NO_TIME if dts is None else dts


def read_packets(
    data: BinaryIO, places: ArrayLike, sizes: ArrayLike, checksums: ArrayLike, *, start: int = 0
) -> Iterator[Packet]:
    """Packets from their places in the file, numbered from `start`.

    Raises:
        Disagreement: If other bytes are found there.
    """
    table = np.stack((places, sizes, checksums), axis=1).tolist()
    for number, (place, size, checksum) in enumerate(table, start):
        data.seek(place)
        content = data.read(size)
        if zlib.crc32(content) != checksum:
            raise Disagreement
        packet = Packet(size)  # in FFmpeg's own memory, since decoders read a little beyond the end
        packet.update(content)
        packet.pts = number
        yield packet


def _continued(times: np.ndarray, time_base: tuple[int, int], container: str) -> np.ndarray:
    """Times that do not fall: where the clock is set back, as in files joined byte for byte, it continues instead.

    Formats for broadcast may set it ahead, too. Small falls are rounding or mistakes of whoever wrote the file, and a
    single time that the next one belies is a mistake, too.
    """
    known = np.flatnonzero(times != NO_TIME)
    own = times[known]
    back, ahead = (seconds * time_base[1] / time_base[0] for seconds in (MOST_BACK, _MOST_AHEAD))
    before, time, after = own[:-2], own[1:-1], own[2:]
    stray = (before <= after) & (after - before <= ahead) & ((time < before - back) | (time > after + back))
    time[stray] = (before + (after - before) // 2)[stray]
    steps = np.diff(own)
    broken = steps < -back
    if container in SEEK_BY_BYTE:
        broken |= steps > ahead
    steps[broken] = np.median(steps[steps > 0]) if (steps > 0).any() else 0
    continued = times.copy()
    continued[known[1:]] = own[:1] + np.cumsum(steps)
    continued[known] = np.maximum.accumulate(continued[known])
    return continued


def average_rate(times: np.ndarray, time_base: tuple[int, int]) -> float:
    """Frames per second, 0 where the times do not tell."""
    if len(times) < 2 or NO_TIME in times or (np.diff(times) <= 0).any():
        return 0.0
    return (len(times) - 1) * time_base[1] / (int(times[-1] - times[0]) * time_base[0])
