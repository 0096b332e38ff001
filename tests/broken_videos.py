"""Videos with lost packets and damaged bytes, as recorders, streams and disks leave them.

Each is a small file of a table, `BROKEN_VIDEOS`, and has the same bytes whenever and wherever it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from pathlib import Path

import av
import numpy as np
from av.bitstream import BitStreamFilterContext

NUM_FRAMES = 36
HEIGHT, WIDTH = 64, 96
# With its macroblock tree x264 writes other bytes from time to time; with several threads all encoders may.
_X264 = {"preset": "fast", "crf": "18", "threads": "1", "mbtree": "0"}
_X265 = "keyint=16:bframes=3:b-pyramid=1:ref=3:pools=none:frame-threads=1:wpp=0:log-level=none"
STREAMS = {  # name -> encoder and its options
    "h264": ("libx264", _X264 | {"g": "16", "bf": "3", "refs": "3", "x264-params": "b-pyramid=normal:b-adapt=0"}),
    "h264_open": ("libx264", _X264 | {"g": "12", "bf": "2", "x264-params": "open-gop=1:b-adapt=0"}),
    "h264_p": ("libx264", _X264 | {"g": "20", "bf": "0", "refs": "4"}),
    "hevc": ("libx265", {"preset": "fast", "crf": "20", "x265-params": _X265}),
    "mpeg4": ("mpeg4", {"g": "12", "bf": "2", "threads": "1", "qscale": "6", "flags": "+qscale"}),
    "vp9": ("libvpx-vp9", {"g": "16", "cpu-used": "8", "lag-in-frames": "8", "auto-alt-ref": "1", "threads": "1"}),
    "av1": ("libsvtav1", {"g": "16", "preset": "12", "svtav1-params": "lp=1"}),
}


def pictures(num_frames: int = NUM_FRAMES, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A pattern that moves under noise, which no frame can be guessed from another."""
    generator = np.random.default_rng(0)
    pattern = generator.integers(0, 200, (height // 8, width // 8 + num_frames, 3)).repeat(8, axis=0).repeat(8, axis=1)
    moving = np.stack([pattern[:, 3 * i : 3 * i + width] for i in range(num_frames)])
    return (moving + generator.integers(0, 40, moving.shape)).astype(np.uint8)


def write_stream(path: Path, name: str) -> Path:
    """The whole video of `STREAMS[name]`."""
    codec, options = STREAMS[name]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for picture in pictures():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


@dataclass(frozen=True)
class _Packet:
    data: bytes
    pts: int
    dts: int
    is_keyframe: bool


def _read_packets(path: Path) -> list[_Packet]:
    with av.open(str(path)) as container:
        return [
            _Packet(bytes(packet), packet.pts, packet.dts, packet.is_keyframe)
            for packet in container.demux(video=0)
            if packet.size
        ]


def _mux(source: Path, path: Path, packets: Iterable[_Packet]) -> None:
    """Writes packets of the source into another container."""
    # Otherwise Matroska has a random number in its header, and an MP4 that is cut off has no index.
    options = {"fflags": "+bitexact"} | ({"movflags": "faststart"} if path.suffix == ".mp4" else {})
    with av.open(str(source)) as original, av.open(str(path), "w", options=options) as container:
        template = original.streams.video[0]
        stream = container.add_stream_from_template(template, opaque=True)
        # In AVI the packets of H.264 begin with start codes, in MP4 with their lengths.
        is_h264_in_avi = path.suffix == ".avi" and template.codec.canonical_name == "h264"
        filtering = BitStreamFilterContext("h264_mp4toannexb", template, stream) if is_h264_in_avi else None
        for packet in packets:
            copied = av.Packet(packet.data)
            copied.stream, copied.time_base = stream, template.time_base
            copied.pts, copied.dts, copied.is_keyframe = packet.pts, packet.dts, packet.is_keyframe
            for filtered in filtering.filter(copied) if filtering else [copied]:
                filtered.stream = stream
                container.mux(filtered)


def _close_up(packets: list[_Packet]) -> list[_Packet]:
    """Times without gaps, as recorders write them that count what they get."""
    step = min(b.dts - a.dts for a, b in pairwise(packets))
    ranks = np.argsort(np.argsort([packet.pts for packet in packets]))
    delay = max(i - int(rank) for i, rank in enumerate(ranks))
    return [
        _Packet(packet.data, int(rank) * step, (i - delay) * step, packet.is_keyframe)
        for i, (packet, rank) in enumerate(zip(packets, ranks, strict=True))
    ]


def _shown_out_of_order(packets: list[_Packet]) -> int:
    """The number of a packet in the middle that is shown before the one it follows, a B-frame; any if there is none."""
    middle = len(packets) // 2
    return next((i for i in range(middle, len(packets)) if packets[i].pts < packets[i - 1].pts), middle)


LOSSES: dict[str, Callable[[list[_Packet]], set[int]]] = {  # name -> numbers of the packets that are lost
    "every_7th": lambda packets: set(range(6, len(packets), 7)),
    "burst": lambda packets: set(range(18, 23)),
    "keyframe": lambda packets: {[i for i, packet in enumerate(packets) if packet.is_keyframe][1]},
    "b_frame": lambda packets: {_shown_out_of_order(packets)},
    "first": lambda packets: {0},
}


def _lose(source: Path, path: Path, *, loss: str, closed: bool) -> None:
    packets = _read_packets(source)
    lost = LOSSES[loss](packets)
    left = [packet for i, packet in enumerate(packets) if i not in lost]
    _mux(source, path, _close_up(left) if closed else left)


def _picture_bytes(path: Path) -> tuple[int, int]:
    """Where the packets lie in the file from the fourth on."""
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size and packet.pos]
    return places[3][0], sum(places[-1])


def _zero(data: bytearray, generator: np.random.Generator, start: int, stop: int) -> None:
    place = int(generator.integers(start, stop - 60))
    data[place : place + 60] = bytes(60)


def _flip(data: bytearray, generator: np.random.Generator, start: int, stop: int) -> None:
    for place in generator.integers(start, stop, 6):
        data[place] ^= 1 << int(generator.integers(8))


def _insert(data: bytearray, generator: np.random.Generator, start: int, stop: int) -> None:
    place = int(generator.integers(start, stop))
    data[place:place] = generator.bytes(7)


def _zero_tenth(data: bytearray, generator: np.random.Generator, start: int, stop: int) -> None:
    size = (stop - start) // 40
    for place in generator.integers(start, stop - size, 4):
        data[place : place + size] = bytes(size)


def _truncate(data: bytearray, generator: np.random.Generator, start: int, stop: int) -> None:
    del data[int(generator.integers(start, stop)) :]


DAMAGES = {
    "zeroed": _zero,
    "flipped": _flip,
    "inserted": _insert,
    "zeroed_tenth": _zero_tenth,
    "truncated": _truncate,
}


def _damage(source: Path, path: Path, *, damage: str) -> None:
    _mux(source, path, _read_packets(source))
    data = bytearray(path.read_bytes())
    DAMAGES[damage](data, np.random.default_rng(1), *_picture_bytes(path))
    path.write_bytes(data)


@dataclass(frozen=True)
class BrokenVideo:
    """How a broken video is made of a stream."""

    stream: str
    write: Callable[[Path, Path], None]


LOST_IN = {  # stream -> containers from which packets are lost
    "h264": ("mp4", "mkv", "ts", "avi"),
    "h264_open": ("mp4",),
    "h264_p": ("mp4",),
    "hevc": ("mp4", "ts"),
    "mpeg4": ("mp4", "avi"),
    "vp9": ("webm",),
    "av1": ("mkv",),
}
DAMAGED_IN = {  # stream -> containers whose bytes are damaged
    "h264": ("mp4", "mkv", "ts", "avi"),
    "h264_open": ("mkv",),
    "hevc": ("mp4", "mkv"),
    "mpeg4": ("mp4", "mkv", "avi"),
    "vp9": ("webm", "mp4"),
    "av1": ("mkv", "mp4"),
}


def _table() -> dict[str, BrokenVideo]:
    made = {}
    for stream, suffixes in LOST_IN.items():
        for suffix, loss, closed in product(suffixes, LOSSES, (False, True)):
            name = f"{stream}_lost_{loss}{'_closed' * closed}.{suffix}"
            made[name] = BrokenVideo(stream, partial(_lose, loss=loss, closed=closed))
    for stream, suffixes in DAMAGED_IN.items():
        for suffix, damage in product(suffixes, DAMAGES):
            made[f"{stream}_{damage}.{suffix}"] = BrokenVideo(stream, partial(_damage, damage=damage))
    return made


BROKEN_VIDEOS = _table()


def write_broken_videos(root: Path, names: Iterable[str] = BROKEN_VIDEOS) -> dict[str, Path]:
    """Writes those of the table, by name."""
    made = {}
    for name in names:
        video = BROKEN_VIDEOS[name]
        source = root / f"{video.stream}.whole.mp4"
        if not source.exists():
            write_stream(source, video.stream)
        made[name] = root / name
        video.write(source, made[name])
    return made
