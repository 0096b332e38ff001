"""What `check` says of real files that players show otherwise than they are stored."""

from __future__ import annotations

import struct
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sifa_zoo.config import ClipConfig
from sifa_zoo.preparing.inspection import inspect_video

CLIP = ClipConfig(num_frames=4, frame_stride=1, img_size=32)


def found(path: Path) -> dict[str, str]:
    return inspect_video(path, clip=CLIP, quick=False, stop=threading.Event())


def _write(path: Path, *, streams: int = 1, transfer: int | None = None, ratio: Fraction | None = None) -> Path:
    with av.open(str(path), "w") as container:
        added = [container.add_stream("libx264", rate=25) for _ in range(streams)]
        for stream in added:
            stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
            if ratio is not None:
                stream.codec_context.sample_aspect_ratio = ratio
            if transfer is not None:
                stream.codec_context.color_trc = transfer
        for number in range(10):
            for stream in added:
                frame = av.VideoFrame.from_ndarray(np.full((48, 80, 3), 20 * number, np.uint8), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream in added:
            container.mux(stream.encode())
    return path


def test_mirrored_as_front_cameras_write_it(tmp_path):
    data = bytearray(_write(tmp_path / "plain.mp4").read_bytes())
    matrix = data.index(b"tkhd") + 44
    data[matrix : matrix + 36] = struct.pack(">9i", -1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    (tmp_path / "mirrored.mp4").write_bytes(data)
    assert found(tmp_path / "mirrored.mp4") == {"mirrored": "stored mirrored; read as players show it"}


def test_anamorphic_as_from_dvd(tmp_path):
    path = _write(tmp_path / "a.mkv", ratio=Fraction(64, 45))
    assert found(path) == {"anamorphic": "pixels are 1.42 times as wide as high; read with square pixels"}


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr(tmp_path, transfer, name):
    path = _write(tmp_path / "a.mp4", transfer=transfer)
    assert found(path) == {"HDR": f"{name} colours, not mapped to those of SDR: they look pale"}


def test_two_video_streams(tmp_path):
    path = _write(tmp_path / "a.mkv", streams=2)
    assert found(path) == {"two video streams": "of 2, the one that FFmpeg chooses is read"}
