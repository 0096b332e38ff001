"""The truth is what PyAV's plain loop decodes, every frame of it, one after another."""

from __future__ import annotations

import os
import random
from pathlib import Path

import av
import numpy as np
import pytest

from sifa_zoo.data import decode, index_cache
from sifa_zoo.data.container import find_file
from sifa_zoo.data.decode import VideoError, load_video, video_info
from sifa_zoo.data.index_cache import find_index

NAMES = {  # name of a video -> frames in it, None: as many as decode
    **dict.fromkeys(("long_gop", "short_gop", "open_gop", "fragmented", "mpeg4_b_frames", "mpeg4_in_mp4", "vp9"), 40),
    **dict.fromkeys(("transport_stream", "raw", "gif", "uneven_times", "late_start", "rotated"), 40),
    "one_frame": 1,
    "colon": 3,
    "damaged": None,
    "truncated": None,
}
BY_TIME = ("long_gop", "short_gop", "open_gop", "fragmented", "vp9", "uneven_times", "late_start", "rotated")


def decode_all(path: Path) -> np.ndarray:
    frames = []
    with av.open(f"file:{path}") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            try:
                frames += packet.decode()
            except av.error.InvalidDataError:
                continue
        return np.stack([np.rot90(f.to_ndarray(format="rgb24", threads=1), round(f.rotation / 90)) for f in frames])


@pytest.fixture(autouse=True)
def _forget_indices():
    index_cache.forget_memory()


@pytest.mark.parametrize("name", NAMES)
def test_any_frames_equal_those_of_a_whole_pass(videos, name):
    truth = decode_all(videos[name])
    last = len(truth) - 1
    generator = random.Random(0)
    draws = [[generator.randint(0, last) for _ in range(count)] for count in (1, 1, 1, 3, 16)]
    for numbers in ([0], [last], list(range(last, -1, -1)), [last, 0, 0, last], *draws):
        np.testing.assert_array_equal(load_video(videos[name], numbers), truth[numbers], err_msg=f"{numbers}")
    np.testing.assert_array_equal(load_video(videos[name]), truth)
    assert video_info(videos[name]).num_frames == len(truth) == (NAMES[name] or len(truth))


@pytest.mark.parametrize("name", BY_TIME)
def test_good_files_are_read_by_time(videos, name):
    load_video(videos[name], [3, 35])
    assert find_index(find_file(videos[name])).access == "direct"


def test_uncommon_codecs_are_read_by_time_once_proven(videos):
    path = videos["mpeg4_in_mp4"]
    assert not decode._find_index(path).by_time
    assert video_info(path).num_frames == 40
    assert decode._find_index(path).by_time


def test_damage_is_noticed_and_read_in_order(videos, capfd):
    assert 0 < video_info(videos["truncated"]).num_frames < 40
    load_video(videos["damaged"])
    assert not decode._find_index(videos["damaged"]).by_time
    assert capfd.readouterr() == ("", "")


def test_far_frames_are_reached_by_seeking(videos):
    index = decode._find_index(videos["short_gop"])
    runs = list(index.runs([0, 4, 35]))
    assert [numbers for _, numbers in runs] == [[0, 4], [35]]
    assert runs[0][0] == index.key_times[0] < runs[1][0] == index.key_times[3]


@pytest.mark.parametrize("name", ["long_gop", "mpeg4_b_frames", "truncated"])
def test_numbers_beyond_the_end_give_the_last_frame(videos, name):
    truth = decode_all(videos[name])
    frames = load_video(videos[name], [len(truth) + 7, 1, len(truth), 10**9])
    np.testing.assert_array_equal(frames, truth[[-1, 1, -1, -1]])


def test_numbers_may_be_of_any_whole_type(videos):
    frames = load_video(videos["short_gop"], np.array([5, 2]))
    np.testing.assert_array_equal(frames, load_video(videos["short_gop"], (5, 2)))
    assert load_video(videos["short_gop"], [], short_side=24).shape == (0, 24, 40, 3)
    with pytest.raises(TypeError):
        load_video(videos["short_gop"], [1.5])


def test_negative_numbers_are_refused(videos):
    with pytest.raises(ValueError, match="frame numbers count from 0, got -3"):
        load_video(videos["short_gop"], [2, -3])


@pytest.mark.parametrize(
    ("name", "short_side", "size"),
    [("short_gop", 24, (24, 40)), ("short_gop", 31, (31, 52)), ("short_gop", 96, (96, 160)), ("rotated", 24, (40, 24))],
)
def test_short_side(videos, name, short_side, size):
    small = load_video(videos[name], [0, 30], short_side=short_side)
    assert small.shape == (2, *size, 3)
    assert small.dtype == np.uint8
    whole = load_video(videos[name], [0, 30])
    np.testing.assert_allclose(small.mean((1, 2)), whole.mean((1, 2)), atol=4)


def test_short_side_must_be_positive(videos):
    with pytest.raises(ValueError, match="short_side must be at least 1 pixel, got short_side = 0"):
        load_video(videos["short_gop"], [0], short_side=0)


def test_rotated_video_is_upright(videos):
    info = video_info(videos["rotated"])
    assert (info.height, info.width) == (80, 48)
    # The matrix turns clockwise, which brings the square at the top left to the top right.
    upright = np.rot90(load_video(videos["long_gop"], [20]), -1, axes=(1, 2))
    np.testing.assert_array_equal(load_video(videos["rotated"], [20]), upright)


def test_size_may_change_within_the_video(tmp_path, write_video):
    wide = write_video(tmp_path / "wide.h264", "libx264", num_frames=6)
    tall = write_video(tmp_path / "tall.h264", "libx264", num_frames=6, size=(96, 64))
    path = tmp_path / "both.h264"
    path.write_bytes(wide.read_bytes() + tall.read_bytes())
    assert load_video(path).shape == (12, 48, 80, 3)
    frames = load_video(path, [8, 1])  # the first one asked for decides, though it is decoded last
    assert frames.shape == (2, 96, 64, 3)
    np.testing.assert_array_equal(frames[0], load_video(tall, [2])[0])
    assert load_video(path, [8, 1], short_side=32).shape == (2, 48, 32, 3)


def test_video_info(videos):
    info = video_info(videos["short_gop"])
    assert (info.num_frames, info.height, info.width) == (40, 48, 80)
    assert info.fps == pytest.approx(25)
    assert info.duration_seconds == pytest.approx(1.6)
    last_time = (39 + 39 * 39 // 9) / 25
    assert video_info(videos["uneven_times"]).fps == pytest.approx(39 / last_time)


def test_index_is_built_once_for_a_file_and_again_when_it_changes(tmp_path, videos, monkeypatch):
    opened = []
    packets = decode._packets
    monkeypatch.setattr(decode, "_packets", lambda source: opened.append(source) or packets(source))
    path = tmp_path / "video.mp4"
    path.write_bytes(videos["long_gop"].read_bytes())
    assert [video_info(path).num_frames for _ in range(3)] == [40] * 3
    assert len(opened) == 1
    path.write_bytes(videos["one_frame"].read_bytes())
    os.utime(path, ns=(1, 1))
    assert video_info(path).num_frames == 1
    assert len(opened) == 2


@pytest.mark.parametrize("read", [load_video, video_info])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "no such file"),
        ("folder", "is a folder, expected a video file"),
        ("empty", "the file is empty"),
        ("text", "not a video that FFmpeg can open"),
        ("audio", "no video stream, the file holds only audio"),
        ("without_index", "MP4 without its index (moov atom), the file is truncated; copy or download it again"),
        ("without_frames", "not one frame of its h264 stream can be decoded, the file is damaged"),
    ],
)
def test_error_names_file_and_reason(not_videos, read, name, reason):
    with pytest.raises(VideoError) as error:
        read(not_videos[name])
    assert str(error.value) == f"{not_videos[name]}: {reason}"
