"""Videos that players show otherwise than their pixels are stored, one way each."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from av.stream import Disposition
from av.video.reformatter import ColorTrc

NUM_FRAMES = 24
HEIGHT, WIDTH = 48, 80
RATE = 25
# (a, b, c, d): a stored pixel (x, y) is shown at (a x + c y, b x + d y), moved to where all are positive.
ORIENTATIONS = {
    f"{a:+}{b:+}{c:+}{d:+}": (a, b, c, d)
    for a, b, c, d in product((-1, 0, 1), repeat=4)
    if abs(a) == abs(d) != abs(b) == abs(c) and abs(a) + abs(b) == 1
}
_MPEG_CLOCK = 90_000  # ticks a second, counted with 33 bits


def pictures(num_frames: int = NUM_FRAMES, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Coloured blocks that move, under a bright square at the top left: no symmetry."""
    blocks = np.random.default_rng(1).integers(0, 200, (height // 8, width // 8 + num_frames, 3), dtype=np.uint8)
    blocks = blocks.repeat(8, axis=0).repeat(8, axis=1)
    images = np.stack([blocks[:, 2 * i : 2 * i + width] for i in range(num_frames)])
    images[:, :16, :16] = 255
    return images


@dataclass(frozen=True)
class Encoding:
    """How pictures become a stream; by default H.264 with B-frames and a keyframe in ten frames."""

    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    params: str = "threads=1:mbtree=0:keyint=10:bframes=2"  # of x264 or x265
    sample_aspect_ratio: Fraction | None = None
    transfer: int | None = None
    first_pts: int = 0

    def add_to(self, container: av.container.OutputContainer, height: int, width: int) -> av.VideoStream:
        options = {f"{self.codec.removeprefix('lib')}-params": self.params}
        stream = container.add_stream(self.codec, rate=RATE, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, self.pix_fmt
        if self.sample_aspect_ratio:
            stream.codec_context.sample_aspect_ratio = self.sample_aspect_ratio
        if self.transfer:
            stream.codec_context.color_trc = self.transfer
        return stream

    def frames(self, images: np.ndarray) -> list[av.VideoFrame]:
        made = []
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = self.first_pts + i, Fraction(1, RATE)
            made.append(frame)
        return made


def write(path: Path, encoding: Encoding | None = None, images: np.ndarray | None = None) -> Path:
    """A video that is shown as it is stored, or as the encoding says."""
    encoding = encoding or Encoding()
    images = pictures() if images is None else images
    with av.open(str(path), "w") as container:
        stream = encoding.add_to(container, *images.shape[1:3])
        for frame in [*encoding.frames(images), None]:
            container.mux(stream.encode(frame))
    return path


def stored_pixels(path: Path) -> np.ndarray:
    """All frames as they are stored, cropped to the pixel as the codec says, neither turned nor stretched."""
    with av.open(str(path)) as container:
        codec = container.streams.video[0].codec_context
        codec.thread_type, codec.thread_count = "NONE", 1
        codec.flags |= Flags.unaligned
        return np.stack([frame.to_ndarray(format="rgb24", threads=1) for frame in container.decode(video=0)])


def as_shown(images: np.ndarray, orientation: str) -> np.ndarray:
    """Each pixel put where the display matrix says."""
    a, b, c, d = ORIENTATIONS[orientation]
    y, x = np.mgrid[: images.shape[1], : images.shape[2]]
    columns, rows = a * x + c * y, b * x + d * y
    columns, rows = columns - columns.min(), rows - rows.min()
    shown = np.empty((len(images), rows.max() + 1, columns.max() + 1, 3), np.uint8)
    shown[:, rows, columns] = images
    return shown


def orient(source: Path, path: Path, orientation: str) -> Path:
    """A copy of an MP4 with another display matrix."""
    a, b, c, d = (value << 16 for value in ORIENTATIONS[orientation])
    data = bytearray(source.read_bytes())
    matrix = data.index(b"tkhd") + 44
    data[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def add_clean_aperture(source: Path, path: Path, crop: tuple[int, int, int, int]) -> Path:
    """A copy of an MP4 whose index, at its end, gets a `clap` box; `crop`: left, top, right, bottom."""
    left, top, right, bottom = crop
    # Offsets are those of the centre, in halves of pixels.
    values = (WIDTH - left - right, 1, HEIGHT - top - bottom, 1, left - right, 2, top - bottom, 2)
    box = struct.pack(">I4s8i", 40, b"clap", *values)
    data = bytearray(source.read_bytes())
    starts = [data.index(b"moov") - 4]
    for name in (b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        starts.append(data.index(name, starts[-1] + 4) - 4)
    end = starts[-1] + int.from_bytes(data[starts[-1] : starts[-1] + 4], "big")
    for start in starts:
        size = int.from_bytes(data[start : start + 4], "big")
        data[start : start + 4] = (size + len(box)).to_bytes(4, "big")
    data[end:end] = box
    path.write_bytes(data)
    return path


def write_two_streams(path: Path, small: np.ndarray, large: np.ndarray) -> Path:
    """Two video streams, of which the second is flagged as default."""
    encoding = Encoding()
    with av.open(str(path), "w") as container:
        streams = [encoding.add_to(container, *images.shape[1:3]) for images in (small, large)]
        streams[0].disposition, streams[1].disposition = 0, Disposition.default.value
        for stream, images in zip(streams, (small, large), strict=True):
            for frame in [*encoding.frames(images), None]:
                container.mux(stream.encode(frame))
    return path


def join(path: Path, *sources: Path) -> Path:
    """Files one after another, byte for byte."""
    path.write_bytes(b"".join(source.read_bytes() for source in sources))
    return path


def write_wrapping_clock(path: Path) -> Path:
    """MPEG-TS whose clock starts anew at 0 after half of the frames."""
    return write(path, Encoding(first_pts=2**33 * RATE // _MPEG_CLOCK - NUM_FRAMES // 2))


def write_rotation_in_keyframes(path: Path) -> Path:
    """MPEG-TS with H.264 whose keyframes, and no others, say: turn by a quarter, counter-clockwise."""
    # Display orientation, message 47 of 3 bytes: not cancelled, no flips, 1/4 turn in 16 bits, for this frame only.
    message = b"\0\0\1\x06" + bytes([47, 3, 0b00001000, 0, 0b00010100, 0x80])
    return _write_edited(path, lambda data: data.replace(b"\0\0\1\x65", message + b"\0\0\1\x65", 1))


def _write_edited(path: Path, edit: Callable[[bytes], bytes]) -> Path:
    """Writes a video, each packet edited."""
    encoding, images = Encoding(), pictures()
    with av.open(str(path), "w") as container:
        stream = encoding.add_to(container, *images.shape[1:3])
        for frame in [*encoding.frames(images), None]:
            for packet in stream.encode(frame):
                edited = av.Packet(edit(bytes(packet)))
                edited.stream, edited.time_base, edited.is_keyframe = stream, packet.time_base, packet.is_keyframe
                edited.pts, edited.dts = packet.pts, packet.dts
                container.mux(edited)
    return path


HDR = {"pq": ColorTrc.SMPTE2084, "hlg": ColorTrc.ARIB_STD_B67}


def write_hdr(path: Path, transfer: str) -> Path:
    """HEVC of 10 bits with the transfer curve of HDR10 (`pq`) or of broadcast (`hlg`)."""
    params = "pools=none:frame-threads=1:log-level=none:keyint=10"
    return write(path, Encoding("libx265", "yuv420p10le", params, transfer=HDR[transfer]))
