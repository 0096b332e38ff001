from __future__ import annotations

import random
import struct
import threading
from pathlib import Path

import pytest

from sifa_zoo.preparing.cut_off import why_cut_off
from sifa_zoo.preparing.ebml import why_damaged
from sifa_zoo.video.container import NamedBytes, find_file

SHORT = {"g": "10", "bf": "2"}
# A kind of file: suffix, codec, options of the container.
KINDS = {
    "mp4": ("mp4", "libx264", {}),
    "mp4 with its index first": ("mp4", "libx264", {"movflags": "faststart"}),
    "fragmented mp4": ("mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
    "mov": ("mov", "mpeg4", {}),
    "mkv": ("mkv", "libx264", {}),
    "live mkv": ("mkv", "libx264", {"live": "1"}),
    "mkv with its index first": ("mkv", "libx264", {"cues_to_front": "1"}),
    "webm": ("webm", "libvpx-vp9", {}),
    "avi": ("avi", "mpeg4", {}),
    "ts": ("ts", "libx264", {}),
    "mpg": ("mpg", "mpeg2video", {}),
    "raw": ("h264", "libx264", {}),
    "gif": ("gif", "gif", {}),
    "flv": ("flv", "libx264", {}),
}
TELLING = ("mp4 with its index first", "fragmented mp4", "mkv", "mkv with its index first", "webm", "avi")


def why(data: bytes) -> str:
    return why_cut_off(find_file(NamedBytes(data, "clip")), threading.Event())


@pytest.fixture(scope="module")
def files(tmp_path_factory, write_video) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("kinds")
    made = {}
    for number, (name, (suffix, codec, container_options)) in enumerate(KINDS.items()):
        pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        path = root / f"{number}.{suffix}"
        made[name] = write_video(path, codec, options=SHORT, container_options=container_options, pix_fmt=pix_fmt)
    return {name: path.read_bytes() for name, path in made.items()} | {
        "avi of several chunks": _open_dml(made["avi"].read_bytes()),
        "mp4 with sizes of 64 bits": _with_large_sizes(made["mp4 with its index first"].read_bytes()),
        "mp4 whose data reach to the end": _with_size_0(made["mp4 with its index first"].read_bytes()),
    }


def _open_dml(avi: bytes) -> bytes:
    """With a second chunk, as AVI files of more than a gigabyte have it."""
    content = b"AVIX" + b"LIST" + struct.pack("<I", 4 + 1000) + b"movi" + bytes(1000)
    return avi + b"RIFF" + struct.pack("<I", len(content)) + content


def _with_large_sizes(mp4: bytes) -> bytes:
    """The index before the data stays right, since these lose the eight bytes that the size gains."""
    place = mp4.index(b"mdat") - 4
    size = int.from_bytes(mp4[place : place + 4], "big")
    return mp4[:place] + struct.pack(">I4sQ", 1, b"mdat", size) + mp4[place + 16 :]


def _with_size_0(mp4: bytes) -> bytes:
    place = mp4.index(b"mdat") - 4
    return mp4[:place] + bytes(4) + mp4[place + 4 :]


def _of_unknown_size(mkv: bytes) -> bytes:
    """As a recorder writes it that does not go back to fill in the size."""
    place = mkv.index(bytes.fromhex("18538067")) + 4
    return mkv[:place] + b"\x01" + b"\xff" * 7 + mkv[place + 8 :]


@pytest.mark.parametrize("name", [*KINDS, "avi of several chunks", "mp4 with sizes of 64 bits"])
def test_a_whole_file_is_not_cut_off(files, name):
    assert why(files[name]) == ""


@pytest.mark.parametrize("share", [0.4, 0.7, 0.99])
@pytest.mark.parametrize("name", [*TELLING, "avi of several chunks", "mp4 with sizes of 64 bits"])
def test_a_cut_file_says_how_much_is_there(files, name, share):
    data = files[name]
    cut = data[: int(len(data) * share)]
    text = why(cut)
    assert text.startswith("the file says it has ")
    assert text.endswith(f" bytes, {len(cut):,} are there")
    promised = int(text.split()[5].replace(",", ""))
    assert len(cut) < promised <= len(data)


@pytest.mark.parametrize("name", ["ts", "mpg", "raw", "gif", "flv", "mp4 whose data reach to the end"])
def test_some_kinds_do_not_tell(files, name):
    data = files[name]
    assert why(data[: len(data) * 7 // 10]) == ""


def test_what_follows_a_whole_file_does_not_matter(files):
    for name in TELLING:
        assert why(files[name] + b"\0" * 100 + b"trailer") == "", name


def test_an_index_of_indices_names_what_is_not_there(files):
    """OpenDML cut exactly between two chunks."""
    avi = bytearray(files["avi"])
    entry = struct.pack("<QII", len(avi) + 5000, 300, 20)
    index = b"indx" + struct.pack("<IHBBI4s12x", 24 + len(entry), 4, 0, 0, 1, b"00dc") + entry
    place = avi.index(b"JUNK")
    (junk,) = struct.unpack_from("<I", avi, place + 4)
    assert junk > len(index)
    avi[place : place + len(index)] = index
    assert why(bytes(avi)) == f"the file says it has {len(avi) + 5300:,} bytes, {len(avi):,} are there"


def test_matroska_of_unknown_size(files):
    whole = _of_unknown_size(files["mkv"])
    assert why(whole) == ""
    start = whole.rindex(bytes.fromhex("1c53bb6b"))  # the table of keyframes, which a table at the start names
    assert "are there" in why(whole[:start])
    live = files["live mkv"]
    assert why(live[: len(live) * 7 // 10]).startswith("the file says it has")  # within a cluster


def test_matroska_that_only_states_its_duration(tmp_path, write_video):
    clusters = {"cluster_time_limit": "400"}
    path = write_video(tmp_path / "a.mkv", "libx264", options={"g": "10", "bf": "0"}, container_options=clusters)
    data = bytearray(_of_unknown_size(path.read_bytes()))
    table = data.index(bytes.fromhex("114d9b74"))
    data[table : table + 9] = b"\xec\x01" + (data[table + 4] - 0x80 - 4).to_bytes(7, "big")  # an element to skip
    assert why(bytes(data)) == ""
    third, fourth = [i for i in range(len(data)) if data[i:].startswith(bytes.fromhex("1f43b675"))][2:4]
    assert why(bytes(data[:third])) == "0.9 of 1.6 seconds are there"
    assert why(bytes(data[:fourth])) == ""  # less than half a second is missing, which may be a matter of rounding


@pytest.mark.parametrize("name", ["mp4", "fragmented mp4", "mkv", "live mkv", "avi"])
def test_nonsense_is_harmless(files, name):
    generator = random.Random(0)
    for _ in range(60):
        data = bytearray(files[name])
        for _ in range(generator.choice((3, 300))):
            data[generator.randrange(min(len(data), 4000))] = generator.randrange(256)
        data = data[: generator.randrange(1, len(data))]
        why(bytes(data))
        why_damaged(find_file(NamedBytes(bytes(data), "clip")), threading.Event())
    why(bytes(data[:4]))


def test_a_circle_of_sizes_ends(files):
    assert why(b"\0\0\0\x08free" * 300_000) == ""
    head = files["mkv"][: files["mkv"].index(bytes.fromhex("18538067"))]
    assert why(head + bytes.fromhex("18538067 01ffffffffffffff") + b"\xec\x80" * 300_000) == ""


def test_files_on_disk_are_asked_like_bytes(videos: dict[str, Path]):
    stop = threading.Event()
    assert why_cut_off(find_file(videos["truncated"]), stop).startswith("the file says it has")
    assert not [name for name in sorted({*videos} - {"truncated"}) if why_cut_off(find_file(videos[name]), stop)]


@pytest.mark.parametrize("name", KINDS)
def test_the_structure_of_a_whole_file_is_not_broken(files, name):
    whole = files[name]
    for data in (whole, whole[: len(whole) * 7 // 10]):  # nor that of a cut one, which is another finding
        assert why_damaged(find_file(NamedBytes(data, "clip")), threading.Event()) == ""
