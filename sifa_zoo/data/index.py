"""What is known of a video file: its packets, which of them gives which frame, and where decoding may start.

One pass over the packets, without decoding, builds an index. Where every packet has a time of its own, and the codec
shows one frame for each, it says which packet gives which frame: the i-th in order of time gives frame i. In all other
files (AVI, MPEG-TS and PS, FLV, raw streams, GIF, missing or repeated times) headers and times may lie, so the first
decoding of the whole file teaches it.

An index that knows that is kept in memory and on disk for as long as path, size and time of change of the file stay the
same: see `index_cache`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from av.codec import CodecContext
from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from sifa_zoo.data.container import (
    File,
    FileReader,
    OpenVideo,
    VideoError,
    decode,
    open_video,
    packet_of,
    packets,
    use_one_thread,
)
from sifa_zoo.data.scaling import Scaler, turns, upright_size

NO_TIME = -(2**63)

# Containers whose packets' times are those of the frames, where each packet has one of its own.
_TIMED_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
# Each packet of these holds one shown frame; any other codec must first prove it in a whole pass.
_ONE_FRAME_PER_PACKET = ("h264", "hevc", "vp9", "av1")
# Packets of these formats are cut into pieces; seeking by byte finds them again.
SEEK_BY_BYTE = ("mpegts", "mpeg")
# What a packet may carry besides its data without that changing how it is decoded.
_HARMLESS = {"skip_samples", "mpegts_stream_id", "cpb_properties", "prft", "quality_stats"}
_VOP, _USER_DATA = b"\0\0\1\xb6", b"\0\0\1\xb2"  # begin a picture of MPEG-4, and the name of its encoder
_NUM_COMPARED = 3  # frames decoded in two ways, to see that both are the same
_SETTINGS = ("width", "height", "pix_fmt", "bits_per_coded_sample", "reorder_depth")
_SITINGS = ("unspecified", "left", "center", "topleft", "top", "bottomleft", "bottom")
_COLORS = ("color_range", "colorspace", "color_primaries", "color_trc")


class Disagreement(Exception):
    """The file does not behave as its index says, so its frames must be decoded in order."""


@dataclass
class Index:
    """What is known of a file. Packets are numbered in the order of decoding, frames in the order of presentation."""

    container: str
    codec: str
    decoder: dict  # the name of the decoder and what to set in it
    size: tuple[int, int]  # height and width of the first frame, upright
    rotation: int  # degrees, counter-clockwise, that make a stored frame upright
    fps: float
    time_base: tuple[int, int]
    # How packets are reached: "direct" reads them at their place in the file, "seek" lets FFmpeg seek, by byte or by
    # time, "order" decodes from the start.
    access: str
    known: bool  # `frame_packets` and `frame_times` are those of the frames that come out
    packed: bool  # MPEG-4 as DivX packs it into AVI: a packet may hold two pictures, the second shown by a later packet
    num_corrupt: int  # packets that are marked as damaged or do not decode
    positions: np.ndarray = field(repr=False)  # of packets in the file, int64
    sizes: np.ndarray = field(repr=False)  # of packets in bytes, int64
    checksums: np.ndarray = field(repr=False)  # of packets, CRC-32
    keys: np.ndarray = field(repr=False)  # packets at which decoding can start, rising
    key_frames: np.ndarray = field(repr=False)  # for each of them the first frame that is right from there on
    frame_packets: np.ndarray = field(repr=False)  # the packet that gives a frame
    frame_times: np.ndarray = field(repr=False)  # in units of `time_base`, or NO_TIME

    @property
    def num_frames(self) -> int:
        return len(self.frame_packets)

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
        """Whether a distance between frames departs from the usual by more than a tenth and a unit of time."""
        if NO_TIME in self.frame_times or self.num_frames < 3:
            return False
        steps = np.diff(self.frame_times)
        usual = int(np.median(steps))
        return bool(np.abs(steps - usual).max() > (max(1, usual // 10) if usual >= 4 else 0))

    def runs(self, numbers: Sequence[int]) -> Iterator[tuple[int, int, list[int]]]:
        """Splits rising frame numbers into runs of packets: the first, the last, and the frames wanted from them."""
        wanted = np.asarray(numbers)
        needed = self.frame_packets[wanted]
        keys = np.minimum(
            np.searchsorted(self.key_frames, wanted, side="right"), np.searchsorted(self.keys, needed, side="right")
        )
        first = 0
        for place in range(1, len(wanted) + 1):
            # A key beyond all packets of this run: what lies between need not be decoded.
            last = int(needed[first:place].max())
            if place == len(wanted) or self.keys[keys[place] - 1] > last + 1:
                yield int(self.keys[keys[first] - 1]), last, wanted[first:place].tolist()
                first = place

    def distrust(self) -> None:
        """Gives up random access: something in the file is not as it seemed."""
        self.access = "order"
        self.known = False

    def learn(self, passed: Pass) -> None:
        """Takes in what decoding the whole file showed."""
        self.num_corrupt = passed.num_corrupt
        self.frame_packets = np.array(passed.packets, np.int64)
        self.frame_times = np.array(passed.times, np.int64)
        frame_of = dict(zip(passed.packets, range(len(passed.packets)), strict=True))
        marked = set(self.keys.tolist())
        keys = [(packet, frame_of[packet]) for packet in passed.keys if packet in marked and packet]
        # The pictures packed around a keyframe are understood only where each packet gives one.
        keys = [(0, 0), *(sorted(keys) if not self.packed or len(frame_of) == len(self.sizes) else [])]
        self.keys, self.key_frames = np.array(keys, np.int64).T
        if len(frame_of) < self.num_frames or passed.num_corrupt or (np.diff(self.key_frames) < 0).any():
            self.access = "order"
        self.fps = _rate(self.frame_times, self.time_base) or self.fps
        self.known = True

    def create_decoder(self) -> VideoCodecContext:
        """A decoder like the one that FFmpeg makes when it opens the file."""
        codec = CodecContext.create(self.decoder["name"], "r")
        for name in (*_SETTINGS, *_COLORS, "codec_tag"):
            if self.decoder[name] is not None:
                setattr(codec, name, self.decoder[name])
        codec.options = {"chroma_sample_location": self.decoder["chroma_siting"]}
        if self.decoder["extradata"]:
            codec.extradata = bytes.fromhex(self.decoder["extradata"])
        use_one_thread(codec)
        return codec

    def read_packet(self, reader: FileReader, number: int) -> Packet:
        size = int(self.sizes[number])
        packet = Packet(size)  # with FFmpeg's own memory, as decoders read a little beyond the end
        data = reader.read(int(self.positions[number]), size)
        if zlib.crc32(data) != self.checksums[number]:
            raise Disagreement
        packet.update(data)
        return packet


class Pass:
    """Notes down what comes out when a whole file is decoded."""

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
        """FFmpeg's best effort to tell a frame's time: whichever of both times went back less often so far."""
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


@dataclass
class _Packets:
    """What is noted down of the packets in the first pass."""

    times: list[int] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)  # where the very bytes of the packet lie in the file, or -1
    sizes: list[int] = field(default_factory=list)
    checksums: list[int] = field(default_factory=list)
    num_corrupt: int = 0
    plain: bool = True  # nothing is needed to decode a packet but its data and the stream's extradata
    packed: bool = False

    def add(self, packet: Packet, reader: FileReader, mpeg4_extradata: bytes | None) -> None:
        data = bytes(packet)
        position = -1 if packet.pos is None else packet.pos
        # The position may be that of a short header before the data.
        found = reader.read(position, packet.size + 64).find(data) if position >= 0 else -1
        if packet.is_keyframe:
            self.keys.append(len(self.times))
        self.times.append(NO_TIME if packet.pts is None else packet.pts)
        self.shown.append(not packet.is_discard)  # an edit list cuts frames away, but decoding starts at their keys
        self.positions.append(position)
        self.places.append(position + found if found >= 0 else -1)
        self.sizes.append(packet.size)
        self.checksums.append(zlib.crc32(data))
        self.num_corrupt += packet.is_corrupt
        extras = {extra.data_type for extra in packet.iter_sidedata()}
        self.plain &= extras <= _HARMLESS
        if mpeg4_extradata is not None:
            # The decoder works around the mistakes of known encoders, so it must know the encoder from the start.
            self.plain &= _encoder_name(data) in mpeg4_extradata
            self.packed |= data.count(_VOP) > 1


def _encoder_name(data: bytes) -> bytes:
    """The user data of MPEG-4 at the beginning of a packet."""
    head = data[: data.find(_VOP)]
    start = head.find(_USER_DATA)
    if start < 0:
        return b""
    stop = head.find(b"\0\0\1", start + len(_USER_DATA))
    return head[start : stop if stop > 0 else len(head)]


def build_index(file: File) -> Index:
    """Reads all packets and decodes the first frames."""
    table = _Packets()
    first: list[VideoFrame] = []
    num_fed = 0
    with open_video(file) as video, file.reading() as reader:
        decoder = _describe(video)
        codec = video.codec.codec.canonical_name
        mpeg4_extradata = (video.codec.extradata or b"") if codec == "mpeg4" else None
        for number, packet in enumerate(packets(video)):
            table.add(packet, reader, mpeg4_extradata)
            if len(first) < _NUM_COMPARED:
                first += decode(video.codec, packet, number) or []
                num_fed += 1
        if not first:
            first = decode(video.codec, None) or []
        if not first:
            raise VideoError(f"{file.path}: not one frame of its {codec} stream can be decoded, the file is damaged")
        rate = video.stream.average_rate or video.stream.guessed_rate
        time_base = video.stream.time_base or Fraction(1)
        index = Index(
            container=video.container.format.name,
            codec=codec,
            decoder=decoder,
            size=upright_size(first[0], turns(first[0].rotation)),
            rotation=first[0].rotation,
            fps=float(rate or 0),
            time_base=(time_base.numerator, time_base.denominator),
            access="order",
            known=False,
            packed=table.packed,
            num_corrupt=table.num_corrupt,
            positions=np.array(table.places, np.int64),
            sizes=np.array(table.sizes, np.int64),
            checksums=np.array(table.checksums, np.int64),
            keys=np.array(table.keys, np.int64),
            key_frames=np.zeros(0, np.int64),
            frame_packets=np.zeros(0, np.int64),
            frame_times=np.zeros(0, np.int64),
        )
        _know_by_times(index, table)
        if table.plain and min(table.places) >= 0 and _decodes_alike(index, reader, first, num_fed):
            index.access = "direct"
        elif index.known or (table.plain and index.container in SEEK_BY_BYTE):
            index.positions = np.array(table.positions, np.int64)
            placed = (index.positions[index.keys] >= 0) | (index.keys == 0)
            index.keys, index.key_frames = index.keys[placed], index.key_frames[placed[: len(index.key_frames)]]
            index.access = "seek"
    return index


def _describe(video: OpenVideo) -> dict:
    codec = video.codec
    decoder = {name: getattr(codec, name) for name in (*_SETTINGS, *_COLORS)}
    tag = codec.codec_tag
    decoder["codec_tag"] = tag if len(tag) == 4 and tag.isascii() and "\0" not in tag else None
    decoder["extradata"] = (codec.extradata or b"").hex()
    return decoder | {"name": codec.name, "chroma_siting": _SITINGS[0]}


def _know_by_times(index: Index, table: _Packets) -> None:
    """Assigns packets to frames by their times, where these can be relied on."""
    times = np.array(table.times, np.int64)
    shown = np.flatnonzero(table.shown)
    order = shown[np.argsort(times[shown], kind="stable")]
    frame_times = times[order]
    sound = (
        index.container in _TIMED_FORMATS
        and index.codec in _ONE_FRAME_PER_PACKET
        and len(order) > 0
        and NO_TIME not in times
        and not table.num_corrupt
        # Whether a decoder puts out frames without a keyframe before them is not foreseeable.
        and table.keys[:1] == [0]
        and bool((np.diff(frame_times) > 0).all())
        and times[0] <= frame_times[0]
    )
    if not sound:
        return
    index.known = True
    index.frame_packets = order
    index.frame_times = frame_times
    index.key_frames = np.searchsorted(frame_times, times[index.keys])
    if (np.diff(index.key_frames) < 0).any():
        index.distrust()
    index.fps = _rate(frame_times, index.time_base) or index.fps


def _decodes_alike(index: Index, reader: FileReader, frames: list[VideoFrame], num_fed: int) -> bool:
    """Whether a decoder of our own, fed from the file, gives the same first frames as FFmpeg's.

    Where colours are sited within a frame is known to some containers only and told to nobody, but scaling depends on
    it: so it is found out by trying.
    """
    for siting in _SITINGS:
        index.decoder["chroma_siting"] = siting
        own = _decode_first(index, reader, num_fed)
        if len(own) != len(frames) or not all(map(_same, own, frames)):
            return False
        if all(map(_same_scaled, own, frames)):
            return True
    return False


def _decode_first(index: Index, reader: FileReader, num_fed: int) -> list[VideoFrame]:
    try:
        codec = index.create_decoder()
        own: list[VideoFrame] = []
        for number in range(num_fed):
            own += decode(codec, index.read_packet(reader, number), number) or []
        return own or decode(codec, None) or []
    except (FFmpegError, ValueError, Disagreement):
        return []


def _same(one: VideoFrame, other: VideoFrame) -> bool:
    names = ("pts", "width", "height", "colorspace", "color_range")
    return (
        all(getattr(one, name) == getattr(other, name) for name in names)
        and one.format.name == other.format.name
        and one.rotation in (0, other.rotation)
        and np.array_equal(one.to_ndarray(format="rgb24", threads=1), other.to_ndarray(format="rgb24", threads=1))
    )


def _same_scaled(one: VideoFrame, other: VideoFrame) -> bool:
    size = (one.height // 2 or 1, one.width // 2 or 1)
    return np.array_equal(Scaler().to_rgb(one, size), Scaler().to_rgb(other, size))


def _rate(times: np.ndarray, time_base: tuple[int, int]) -> float:
    """Frames per second on average, 0 where the times do not tell."""
    if len(times) < 2 or NO_TIME in times or (np.diff(times) <= 0).any():
        return 0.0
    return (len(times) - 1) * time_base[1] / (int(times[-1] - times[0]) * time_base[0])
