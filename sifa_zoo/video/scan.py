"""Builds the index of a file in one pass over its packets, decoding only the first frames.

Where every packet has a time of its own and the headers of the stream show that each gives a frame and that none is
missing (H.264 in MP4 or Matroska), the i-th packet in order of time gives frame i. Anywhere else times may lie, or a
decoder may refuse a packet, so the index learns which packet gives which frame only when the whole file is decoded.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from typing import BinaryIO

import numpy as np
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame

from sifa_zoo.video.container import (
    SEEK_BY_BYTE,
    File,
    OpenVideo,
    VideoError,
    decode,
    open_video,
    packets,
    why_no_frame,
)
from sifa_zoo.video.decoder_settings import CHROMA_SITINGS, DecoderSettings
from sifa_zoo.video.h264_headers import FaultyError, H264Headers, split_units
from sifa_zoo.video.index import NO_TIME, Access, Disagreement, Index, average_rate, read_packets
from sifa_zoo.video.scaling import Display, Scaler

# Containers in which packets have the times of their frames, as long as no two are the same.
TIMED_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
# Codecs whose decoders can leave out, packet by packet, frames to which no other refers. So does HEVC's, but it takes
# for such a frame one to which only higher temporal layers refer: there must be no others.
_SKIPPING = ("h264", "mpeg4", "mpeg2video", "mpeg1video")
_UNSTABLE = ("vp8",)  # after a loss, its decoder may read memory that holds other frames than in order
_TRANSFERS = {16: "PQ", 18: "HLG"}  # as ITU-T H.273 numbers them
# What a packet may carry besides its data without being decoded differently.
_HARMLESS = {"skip_samples", "mpegts_stream_id", "cpb_properties", "prft", "quality_stats"}
_VOP, _USER_DATA = b"\0\0\1\xb6", b"\0\0\1\xb2"  # begin a picture of MPEG-4, and the name of its encoder
_NUM_COMPARED = 3  # frames decoded both by FFmpeg's decoder and by our own, to see whether they are the same


def build_index(file: File) -> Index:
    """Reads all packets and decodes the first frames.

    Raises:
        VideoError: If the file cannot be opened as a video, or no frame can be decoded.
    """
    with open_video(file) as video, file.open() as data:
        settings = DecoderSettings.of(video.codec)
        table = _read_packets(video, data)
        container, codec = video.container.format.name, video.codec.codec.canonical_name
        if not table.first_frames:
            raise VideoError(f"{file.path}: {why_no_frame(file, codec)}")
        rate = video.stream.average_rate or video.stream.guessed_rate or 0
        time_base = (video.stream.time_base or Fraction(1)).as_integer_ratio()
        first = table.first_frames[0]
        display = Display.of(first, video)
        in_place = table.plain and min(table.places) >= 0
        own_settings = _matching_settings(settings, table, data) if in_place else None
    headers = table.h264
    countable = headers is not None and headers.proven and container in TIMED_FORMATS
    frames = _frames_by_times(table) if countable else None
    known = frames is not None
    frame_packets, frame_times, key_frames = frames or 3 * [np.zeros(0, np.int64)]
    seekable = known or (table.plain and container in SEEK_BY_BYTE)
    access: Access = "direct" if own_settings else "seek" if seekable else "order"
    positions = np.array(table.positions if access == "seek" else table.places, np.int64)
    keys = np.array(table.keys, np.int64)
    if access == "seek":
        placed = (positions[keys] >= 0) | (keys == 0)  # a keyframe is found by its position, the first without it
        keys, key_frames = keys[placed], key_frames[placed[: len(key_frames)]]
    return Index(
        container=container,
        codec=codec,
        decoder=own_settings or settings,
        num_streams=video.num_streams,
        stored_size=(first.height, first.width),
        display=display,
        transfer=_TRANSFERS.get(first.color_trc, ""),
        fps=average_rate(frame_times, time_base) or float(rate),
        time_base=time_base,
        access=access,
        known=known,
        whole=(headers is None or headers.whole) and codec not in _UNSTABLE,
        skips=codec in _SKIPPING or (codec == "hevc" and table.one_layer),
        packed=table.packed,
        num_corrupt=table.num_corrupt,
        positions=positions,
        sizes=np.array(table.sizes, np.int64),
        checksums=np.array(table.checksums, np.int64),
        keys=keys,
        key_frames=key_frames,
        frame_packets=frame_packets,
        frame_times=frame_times,
    )


@dataclass
class _Packets:
    """What the pass over all packets notes."""

    codec: str
    extradata: bytes
    h264: H264Headers | None = None
    times: list[int] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)  # where the very bytes of the packet lie in the file, or -1
    sizes: list[int] = field(default_factory=list)
    checksums: list[int] = field(default_factory=list)
    num_corrupt: int = 0
    plain: bool = True  # a packet can be decoded from its data and the stream's extradata alone
    packed: bool = False
    one_layer: bool = True  # of time, in HEVC
    first_frames: list[VideoFrame] = field(default_factory=list)
    num_fed: int = 0  # packets decoded to get the first frames

    def __post_init__(self) -> None:
        if self.codec == "h264":
            self.h264 = H264Headers(self.extradata)

    def add(self, packet: Packet, file: BinaryIO) -> None:
        data = bytes(packet)
        position = -1 if packet.pos is None else packet.pos
        # The position may be that of a short header before the data.
        found = -1
        if position >= 0:
            file.seek(position)
            found = file.read(packet.size + 64).find(data)
        if packet.is_keyframe:
            self.keys.append(len(self.times))
        self.times.append(NO_TIME if packet.pts is None else packet.pts)
        self.shown.append(not packet.is_discard)  # an edit list cuts frames out, but decoding may start at them
        self.positions.append(position)
        self.places.append(position + found if found >= 0 else -1)
        self.sizes.append(packet.size)
        self.checksums.append(zlib.crc32(data))
        self.num_corrupt += packet.is_corrupt
        self._read_headers(data)
        extras = {extra.data_type for extra in packet.iter_sidedata()}
        self.plain &= extras <= _HARMLESS

    def _read_headers(self, data: bytes) -> None:
        if self.h264 is not None:
            self.h264.add(data)
        elif self.codec == "hevc":
            self.one_layer &= _in_first_layer(data, self.extradata)
        elif self.codec == "mpeg4":
            # The decoder works around the faults of known encoders, so it must know the encoder from the start.
            self.plain &= _encoder_name(data) in self.extradata
            self.packed |= data.count(_VOP) > 1


def _read_packets(video: OpenVideo, data: BinaryIO) -> _Packets:
    table = _Packets(video.codec.codec.canonical_name, video.codec.extradata or b"")
    for number, packet in enumerate(packets(video)):
        table.add(packet, data)
        if len(table.first_frames) < _NUM_COMPARED:
            packet.pts = number
            table.first_frames += decode(video.codec, packet) or []
            table.num_fed += 1
    if not table.first_frames:
        table.first_frames += decode(video.codec, None) or []
    return table


def _in_first_layer(data: bytes, extradata: bytes) -> bool:
    """Whether all units of a packet of HEVC belong to the first temporal layer."""
    length_size = (extradata[21] & 3) + 1 if extradata[:1] == b"\1" and len(extradata) > 21 else 0
    try:
        return all(unit[1] & 7 == 1 for unit in split_units(data, length_size))
    except (FaultyError, IndexError):
        return False


def _encoder_name(data: bytes) -> bytes:
    """The user data of MPEG-4 at the beginning of a packet."""
    head = data[: data.find(_VOP)]
    start = head.find(_USER_DATA)
    if start < 0:
        return b""
    stop = head.find(b"\0\0\1", start + len(_USER_DATA))
    return head[start : stop if stop > 0 else len(head)]


def _frames_by_times(table: _Packets) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Packets and times of the frames, and the frame of each keyframe, by times; None where these are not reliable."""
    times = np.array(table.times, np.int64)
    shown = np.flatnonzero(table.shown)
    order = shown[np.argsort(times[shown], kind="stable")]
    frame_times = times[order]
    key_frames = np.searchsorted(frame_times, times[table.keys])
    assert table.h264 is not None
    in_order = [table.h264.orders[packet] for packet in np.argsort(times, kind="stable")]
    reliable = (
        len(order) > 0
        and NO_TIME not in times
        and not table.num_corrupt
        # Nobody can foresee whether a decoder puts out frames that have no keyframe before them.
        and table.keys[:1] == [0]
        and (np.diff(frame_times) > 0).all()
        # A decoder drops a frame that comes too late by the stream's own order.
        and all(one < other for one, other in pairwise(in_order))
        and times[0] <= frame_times[0]
        and (np.diff(key_frames) >= 0).all()
    )
    return (order, frame_times, key_frames) if reliable else None


def _matching_settings(settings: DecoderSettings, table: _Packets, data: BinaryIO) -> DecoderSettings | None:
    """Settings with which our own decoder, fed from the file, gives the same first frames as FFmpeg's, if any do.

    Scaling depends on where the colours are sited within a frame. Only some containers say so, and PyAV does not pass
    it on: it has to be found by trying.
    """
    for siting in CHROMA_SITINGS:
        settings = replace(settings, chroma_siting=siting)
        own = _decode_first(settings, table, data)
        if len(own) != len(table.first_frames) or not all(map(_same, own, table.first_frames)):
            return None
        if all(map(_same_scaled, own, table.first_frames)):
            return settings
    return None


def _decode_first(settings: DecoderSettings, table: _Packets, data: BinaryIO) -> list[VideoFrame]:
    try:
        codec = settings.create()
        columns = (column[: table.num_fed] for column in (table.places, table.sizes, table.checksums))
        own = [frame for packet in read_packets(data, *columns) for frame in decode(codec, packet) or []]
        return own or decode(codec, None) or []
    except (FFmpegError, ValueError, Disagreement):
        return []


def _same(one: VideoFrame, other: VideoFrame) -> bool:
    names = ("pts", "width", "height", "colorspace", "color_range")
    return (
        all(getattr(one, name) == getattr(other, name) for name in names)
        and one.format.name == other.format.name
        and np.array_equal(one.to_ndarray(format="rgb24", threads=1), other.to_ndarray(format="rgb24", threads=1))
    )


def _same_scaled(one: VideoFrame, other: VideoFrame) -> bool:
    size = (one.height // 2 or 1, one.width // 2 or 1)
    return np.array_equal(Scaler().to_rgb(one, size, Display()), Scaler().to_rgb(other, size, Display()))
