"""Why files cannot be read: each error is true, and names the way out."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sifa_zoo.video.load import VideoError, load_video


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


def _encrypted(mp4: bytes, *, with_scheme: bool) -> bytes:
    """An MP4 whose description says that its H.264 is encrypted (cenc); its index must be behind the data."""
    data = bytearray(mp4)
    entry = data.index(b"avc1", data.index(b"stsd"))
    data[entry : entry + 4] = b"encv"
    if not with_scheme:
        return bytes(data)
    scheme = _box(b"schm", bytes(4) + b"cenc" + struct.pack(">I", 1 << 16))
    key = _box(b"schi", _box(b"tenc", bytes(6) + b"\1\x08" + bytes(range(16))))
    protection = _box(b"sinf", _box(b"frma", b"avc1") + scheme + key)
    (length,) = struct.unpack_from(">I", data, entry - 4)
    data[entry - 4 + length : entry - 4 + length] = protection
    for name in (b"encv", b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        place = data.index(name) - 4
        struct.pack_into(">I", data, place, struct.unpack_from(">I", data, place)[0] + len(protection))
    return bytes(data)


@pytest.mark.parametrize("with_scheme", [False, True])
def test_an_encrypted_file_is_not_called_damaged(videos: dict[str, Path], tmp_path: Path, with_scheme: bool) -> None:
    path = tmp_path / "drm.mp4"
    path.write_bytes(_encrypted(videos["short_gop_mp4"].read_bytes(), with_scheme=with_scheme))
    for wanted in (None, [0]):
        with pytest.raises(VideoError, match=r"drm\.mp4: encrypted, and FFmpeg has no key; take a copy without"):
            load_video(path, wanted)


def test_animated_webp_is_not_called_damaged(tmp_path: Path) -> None:
    pictures = [Image.fromarray(np.full((40, 60, 3), 20 * i, np.uint8)) for i in range(8)]
    pictures[0].save(tmp_path / "still.webp")
    assert load_video(tmp_path / "still.webp").shape == (1, 40, 60, 3)
    path = tmp_path / "animated.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40)
    with pytest.raises(
        VideoError, match=r"FFmpeg cannot decode animated WebP; save it as GIF or MP4, or its frames as"
    ):
        load_video(path)


def test_data_after_an_mp4_hide_no_encryption(videos: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(videos["long_gop"].read_bytes() + b"stsd" + bytes(12) + b"encv")
    assert len(load_video(path)) == 40
