from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from sifa_zoo.config import ClipConfig
from sifa_zoo.preparing import inspection
from sifa_zoo.preparing.inspection import inspect_video
from sifa_zoo.video.load import video_info

CLIP = ClipConfig(num_frames=4, frame_stride=4, img_size=32)
AV1 = next((name for name in ("libsvtav1", "libaom-av1") if name in av.codecs_available), None)
CODECS = {"vp9": ("libvpx-vp9", {"g": "10", "deadline": "realtime"}), "av1": (AV1, {"g": "10", "preset": "12"})}


def found(path: Path | bytes, *, quick: bool = False) -> dict[str, str]:
    return inspect_video(path, clip=CLIP, quick=quick, stop=threading.Event())


@pytest.fixture(scope="module", params=CODECS)
def encoded(request, tmp_path_factory, write_video) -> Path:
    codec, options = CODECS[request.param]
    if codec is None:
        pytest.skip("no encoder for AV1")
    path = tmp_path_factory.mktemp("encoded") / ("a.webm" if request.param == "vp9" else "a.mp4")
    return write_video(path, codec, options=options, size=(96, 160))


def _packets(path: Path) -> list[tuple[int, int]]:
    with av.open(str(path)) as video:
        return [(packet.pos, packet.size) for packet in video.demux(video=0) if packet.size]


@pytest.mark.parametrize("kind", ["flipped", "zeroed"])
@pytest.mark.parametrize("seed", range(3))
def test_damage_that_decoders_hide(encoded, tmp_path, kind, seed):
    generator = np.random.default_rng(seed)
    packets = _packets(encoded)
    start, stop = packets[5][0], sum(packets[-1])
    data = bytearray(encoded.read_bytes())
    place = int(generator.integers(start, stop - 60))
    if kind == "zeroed":
        data[place : place + 50] = bytes(50)
    else:
        for place in generator.integers(start, stop, 8):
            data[place] ^= 1 << int(generator.integers(8))
    assert "damaged" not in found(encoded)
    damaged = tmp_path / encoded.name
    damaged.write_bytes(data)
    assert "of 40 frames" in found(damaged)["damaged"]


def test_bytes_inserted_into_matroska_break_its_structure(videos, tmp_path):
    data = videos["short_gop"].read_bytes()
    clusters = data.index(bytes.fromhex("1f43b675"))
    place = clusters + (len(data) - clusters) // 3
    (tmp_path / "a.mkv").write_bytes(data[:place] + b"0123456" + data[place:])
    assert "the structure of the file breaks at byte " in found(tmp_path / "a.mkv")["damaged"]
    assert "breaks" not in found(tmp_path / "a.mkv", quick=True).get("damaged", "")


def test_zeros_within_a_cluster_break_its_structure(videos, tmp_path):
    data = bytearray(videos["short_gop"].read_bytes())
    place = _packets(videos["short_gop"])[7][0]
    data[place - 20 : place + 20] = bytes(40)  # with the header of the packet
    (tmp_path / "a.mkv").write_bytes(data)
    assert "the structure of the file breaks at byte " in found(tmp_path / "a.mkv")["damaged"]


def test_clusters_have_the_checksum_that_they_state(videos, tmp_path):
    data = bytearray(videos["short_gop"].read_bytes())
    place = data.index(bytes.fromhex("1f43b675"))
    data[place + 3000] ^= 1
    (tmp_path / "a.mkv").write_bytes(data)
    assert "1 of 1 clusters do not have the checksum that they state" in found(tmp_path / "a.mkv")["damaged"]


def test_frames_that_do_not_come_out(encoded, monkeypatch):
    whole = inspection._strictly_decoded
    monkeypatch.setattr(inspection, "_strictly_decoded", lambda *args: list(whole(*args))[3:])
    assert found(encoded) == {"damaged": "3 of 40 frames do not come out of the decoder"}


def test_without_the_strict_decoder_the_usual_one_is_asked(videos, monkeypatch):
    monkeypatch.setattr(inspection, "_STRICT_DECODERS", {"vp9": "libvpx"})  # which decodes nothing but VP8
    assert found(videos["vp9"]) == {}
    monkeypatch.setattr(inspection, "_STRICT_DECODERS", {"vp9": "there is none"})
    assert found(videos["vp9"]) == {}


def test_a_video_whose_frames_change_size(tmp_path, write_video):
    small = write_video(tmp_path / "small.h264", "libx264", num_frames=20)
    large = write_video(tmp_path / "large.h264", "libx264", num_frames=20, size=(96, 160))
    mixed = tmp_path / "mixed.h264"
    mixed.write_bytes(small.read_bytes() + large.read_bytes())
    assert found(mixed) == {
        "mixed sizes": "frame 20 has 160x96 pixels, the first 80x48; all are scaled to one size",
    }
    assert found(mixed, quick=True) == {}
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(16):
        Image.new("RGB", (80, 48) if number < 9 else (48, 80)).save(folder / f"{number:05}.png")
    assert found(folder)["mixed sizes"].startswith("frame 9 has 48x80 pixels, the first 80x48")


@pytest.mark.parametrize(
    ("fact", "kind", "detail"),
    [
        ({"rotation": -180}, "rotated", "stored turned by 180 degrees; read upright"),
        ({"rotation": 90}, "rotated", "stored turned by 90 degrees; read upright"),
        ({"mirrored": True}, "mirrored", "stored mirrored; read as players show it"),
        ({"sample_aspect_ratio": 64 / 45}, "anamorphic", "pixels are 1.42 times as wide as high; read with square"),
        ({"transfer": "PQ"}, "HDR", "PQ colours, not mapped to those of SDR"),
        ({"num_streams": 2}, "two video streams", "of 2, the one that FFmpeg chooses is read"),
    ],
)
@pytest.mark.parametrize("quick", [False, True])
def test_what_is_shown_otherwise_than_stored(videos, monkeypatch, fact, kind, detail, quick):
    info = dataclasses.replace(video_info(videos["long_gop"]), **fact)
    monkeypatch.setattr(inspection, "video_info", lambda video: info)
    said = found(videos["long_gop"], quick=quick)
    assert list(said) == [kind]
    assert detail in said[kind]


def test_an_edit_list_cuts_nothing_off(videos, tmp_path):
    """It leaves frames out, of which the file still has the packets."""
    with av.open(str(videos["long_gop"])) as source, av.open(str(tmp_path / "a.mp4"), "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = packet.pts - 2048, packet.dts - 2048  # starts four frames before 0
                packet.stream = stream
                copy.mux(packet)
    assert video_info(tmp_path / "a.mp4").num_frames < 40
    assert "cut off" not in found(tmp_path / "a.mp4")


def test_bytes_are_inspected_like_files(videos):
    assert found(videos["long_gop"].read_bytes()) == {}
    assert list(found(videos["truncated"].read_bytes())) == ["damaged", "cut off"]
    assert found(b"no video" * 9) == {"undecodable": "<bytes>: not a video that FFmpeg can open"}
