"""Headers are read as an encoder writes them; anything missing or damaged in them is found."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from sifa_zoo.video.h264_headers import H264Headers, split_units

STREAMS = {  # options of the encoder -> whether frames can be numbered by headers alone
    "profile=high:bframes=3:b-pyramid=normal:ref=4": True,
    "bframes=2:open-gop=1:weightp=2:weightb=1": True,
    "slices=3:bframes=0:keyint=7": True,
    "interlaced=1:bframes=2": True,
    "cqm=jvt:8x8dct=1": True,
    "cabac=0:bframes=2": False,
}


@pytest.fixture(params=STREAMS)
def stream(request, tmp_path, write_video) -> tuple[bytes, list[bytes], bool]:
    """The extradata of a stream, its packets, and whether it can be proven."""
    path = write_video(tmp_path / "video.mp4", "libx264", options={"x264-params": request.param})
    return *read(path), STREAMS[request.param]


def read(path: Path) -> tuple[bytes, list[bytes]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.codec_context.extradata, [bytes(packet) for packet in container.demux(stream) if packet.size]


def first_slice(packet: bytes) -> int:
    """The first byte of its first slice."""
    return next(unit[0] for unit in split_units(packet, 4) if unit[0] & 31 in (1, 5))


def follow(extradata: bytes, packets: list[bytes]) -> H264Headers:
    headers = H264Headers(extradata)
    for packet in packets:
        headers.add(packet)
    return headers


def test_a_whole_stream(stream):
    extradata, packets, proven = stream
    headers = follow(extradata, packets)
    assert (headers.whole, headers.proven) == (True, proven)
    assert len(headers.orders) == len(packets)


def test_orders_are_those_of_times(tmp_path, write_video):
    path = write_video(tmp_path / "video.mp4", "libx264", options={"g": "9", "bf": "3"})
    with av.open(str(path)) as container:
        times = [packet.pts for packet in container.demux(video=0) if packet.size]
    orders = follow(*read(path)).orders
    assert sorted(range(40), key=times.__getitem__) == sorted(range(40), key=orders.__getitem__)


def test_a_lost_reference_leaves_a_gap(stream):
    extradata, packets, _ = stream
    for lost in range(1, len(packets) - 1):
        is_reference, before_idr = first_slice(packets[lost]) & 0x60, first_slice(packets[lost + 1]) & 31 == 5
        assert follow(extradata, packets[:lost] + packets[lost + 1 :]).whole == (not is_reference or before_idr)


@pytest.mark.parametrize(
    "damage",
    [
        lambda packet: packet[:-1],
        lambda packet: packet + b"\1",
        lambda packet: packet[:40] + bytes(20) + packet[60:],
        lambda packet: packet[:4] + bytes([packet[4] | 0x80]) + packet[5:],
        lambda packet: packet[:5] + b"\0\0" + packet[7:],
        lambda packet: bytes(len(packet)),
    ],
)
def test_damage_is_found(tmp_path, write_video, damage):
    extradata, packets = read(write_video(tmp_path / "video.mp4", "libx264", options={"bf": "0"}))
    place = next(place for place, packet in enumerate(packets) if place and len(packet) > 100)
    packets[place] = damage(packets[place])
    assert not follow(extradata, packets).whole


@pytest.mark.parametrize("extradata", [b"", b"\1", b"\1\2\3\4\5\6", b"\0\0\1", b"\0\0\1\x67", bytes(100)])
def test_nonsense_instead_of_parameter_sets_proves_nothing(extradata):
    assert not follow(extradata, [b"\0\0\0\1\x65\x88"]).proven
