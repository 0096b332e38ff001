"""Tiny videos, one oddity each, written once per test session."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

VIDEO_NAMES = (  # those of the fixture `videos`
    *("long_gop", "short_gop", "short_gop_mp4", "open_gop", "fragmented", "mpeg4_b_frames", "mpeg4_in_mp4", "vp9"),
    *("transport_stream", "raw", "gif", "uneven_times", "late_start", "one_raw_frame", "one_frame", "colon", "flv"),
    *("mpeg2_in_avi", "program_stream", "intra_refresh", "without_keyframe_table", "packed", "rotated", "damaged"),
    "truncated",
)
NUM_FRAMES = 40
HEIGHT, WIDTH = 48, 80


def _pictures(num_frames: int, height: int, width: int) -> np.ndarray:
    """A pattern that moves, under a square whose brightness tells the frame."""
    pattern = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8 + num_frames, 3), dtype=np.uint8)
    pattern = pattern.repeat(8, axis=0).repeat(8, axis=1)
    pictures = np.stack([pattern[:height, 2 * i : 2 * i + width] for i in range(num_frames)])
    pictures[:, :16, :16] = (np.arange(num_frames) * 6 % 256)[:, None, None, None]
    return pictures


def _write(path: Path, codec: str, **settings) -> Path:
    num_frames = settings.get("num_frames", NUM_FRAMES)
    height, width = settings.get("size", (HEIGHT, WIDTH))
    with av.open(str(path), "w", options=settings.get("container_options", {})) as container:
        stream = container.add_stream(codec, rate=25, options=settings.get("options", {}))
        stream.height, stream.width, stream.pix_fmt = height, width, settings.get("pix_fmt", "yuv420p")
        for i, picture in enumerate(_pictures(num_frames, height, width)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = settings.get("pts", lambda i: i)(i), Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _write_audio(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        for i in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, 1024 * i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _rotate(source: Path, path: Path) -> Path:
    """A copy of an MP4 whose display matrix turns it by a quarter, as a phone held upright writes it."""
    data = bytearray(source.read_bytes())
    matrix = data.index(b"tkhd") + 44
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def _damage(source: Path, path: Path) -> Path:
    """A copy with some bits of the picture data inverted."""
    data = bytearray(source.read_bytes())
    middle = (data.index(b"mdat") + len(data)) // 2
    for place in np.random.default_rng(0).integers(middle, len(data), 6):
        data[place] ^= 0x10
    path.write_bytes(data)
    return path


def _pack(source: Path, path: Path) -> Path:
    """A copy of MPEG-4 as DivX packs it: each B-frame in the packet before its own."""
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        extradata = stream.codec_context.extradata + b"\0\0\1\xb2DivX503b1393p"
        packets = [bytes(packet) for packet in container.demux(stream) if packet.size]
    is_b = [data[data.index(b"\0\0\1\xb6") + 4] >> 6 == 2 for data in packets]
    for i in range(len(packets) - 1):
        if not is_b[i] and is_b[i + 1]:
            stop = next((j for j in range(i + 1, len(packets)) if not is_b[j]), len(packets))
            queue = packets[i + 1 : stop]
            packets[i] += queue[0]
            packets[i + 1 : stop] = [*queue[1:], b"\0\0\1\xb6\x51\xcf"]  # a picture that is not coded ends the row
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.extradata = extradata
        for i, data in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, i, i, Fraction(1, 25)
            packet.is_keyframe = not i
            container.mux(packet)
    return path


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
    """Writes a video: `(path, codec, num_frames=, size=, options=, container_options=, pix_fmt=, pts=)`."""
    return _write


@pytest.fixture(scope="session")
def rotate_video() -> Callable[[Path, Path], Path]:
    """Copies an MP4 with a display matrix that turns it by a quarter: `(source, path)`."""
    return _rotate


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Videos by name; the names say what is odd about them."""
    root = tmp_path_factory.mktemp("videos")
    # With its macroblock tree x264 writes other bytes from time to time, to which damage then does something else.
    long_gop = {"g": "250", "bf": "3", "mbtree": "0"}
    short_gop = {"g": "10", "bf": "2"}
    left = {"chroma_sample_location": "left"}  # which the container tells, and VP9 itself does not
    faststart = {"movflags": "faststart"}
    made = {
        "long_gop": _write(root / "long_gop.mp4", "libx264", options=long_gop, container_options=faststart),
        "short_gop": _write(root / "short_gop.mkv", "libx264", options=short_gop),
        "short_gop_mp4": _write(root / "short_gop.mp4", "libx264", options=short_gop),
        "open_gop": _write(root / "open_gop.mp4", "libx264", options={**short_gop, "x264-params": "open-gop=1"}),
        "fragmented": _write(
            root / "fragmented.mp4", "libx264", options=short_gop, container_options={"movflags": "frag_keyframe"}
        ),
        "mpeg4_b_frames": _write(root / "mpeg4.avi", "mpeg4", options=short_gop),
        "mpeg4_in_mp4": _write(root / "mpeg4.mp4", "mpeg4", options=short_gop),
        "transport_stream": _write(root / "stream.ts", "libx264", options=short_gop),
        "raw": _write(root / "raw.h264", "libx264", options=short_gop),
        "vp9": _write(root / "vp9.webm", "libvpx-vp9", options={"g": "10", "deadline": "realtime", **left}),
        "gif": _write(root / "anim.gif", "gif", pix_fmt="rgb8"),
        "uneven_times": _write(root / "vfr.mkv", "libx264", options=short_gop, pts=lambda i: i + i * i // 9),
        "late_start": _write(root / "late.mkv", "libx264", options=short_gop, pts=lambda i: i + 100),
        "one_raw_frame": _write(root / "one.h264", "libx264", num_frames=1),
        "one_frame": _write(root / "one.mp4", "libx264", num_frames=1),
        "colon": _write(root / "a:b 100%d.mp4", "libx264", num_frames=3),
    }
    made |= {
        "flv": _write(root / "flash.flv", "libx264", options=short_gop),
        "mpeg2_in_avi": _write(root / "mpeg2.avi", "mpeg2video", options=short_gop),
        "program_stream": _write(root / "mpeg2.mpg", "mpeg2video", options=short_gop | {"b": "9M"}, size=(240, 320)),
        "intra_refresh": _write(root / "refresh.mp4", "libx264", options={"g": "10", "x264-params": "intra-refresh=1"}),
        "without_keyframe_table": root / "stss.mp4",
    }
    made["packed"] = _pack(made["mpeg4_b_frames"], root / "packed.avi")
    made["without_keyframe_table"].write_bytes(made["short_gop_mp4"].read_bytes().replace(b"stss", b"free"))
    made["rotated"] = _rotate(made["long_gop"], root / "rotated.mp4")
    made["damaged"] = _damage(made["long_gop"], root / "damaged.mp4")
    data = made["long_gop"].read_bytes()
    made["truncated"] = root / "truncated.mp4"
    made["truncated"].write_bytes(data[: (data.index(b"mdat") + len(data)) // 2])
    return made


@pytest.fixture(scope="session")
def not_videos(tmp_path_factory: pytest.TempPathFactory, videos: dict[str, Path]) -> dict[str, Path]:
    """Files that cannot be read as a video, by what is wrong with them."""
    root = tmp_path_factory.mktemp("not_videos")
    made = {"audio": _write_audio(root / "audio.mp4"), "folder": root / "folder", "missing": root / "missing.mp4"}
    made["folder"].mkdir()
    data = videos["long_gop"].read_bytes()
    contents = {
        "empty": b"",
        "text": b"Not a video.\n" * 40,
        "without_index": videos["open_gop"].read_bytes()[:1000],
        "without_frames": data[: data.index(b"mdat") + 20],
    }
    for name, content in contents.items():
        made[name] = root / f"{name}.mp4"
        made[name].write_bytes(content)
    return made
