"""The truth is what PyAV's plain loop decodes, every frame of it, one after another."""

from __future__ import annotations

import math
import multiprocessing
import os
import random
from pathlib import Path

import av
import numpy as np
import pytest

from sifa_zoo.datasets.sampling import clip_indices
from sifa_zoo.video import cache, random_access, reader, scan
from sifa_zoo.video.cache import find_index
from sifa_zoo.video.container import find_file, frames_in_order
from sifa_zoo.video.load import NamedBytes, VideoError, frame_times, load_frames, load_video, video_info
from sifa_zoo.video.scaling import Display, Scaler

NAMES = {  # name of a video -> frames in it, None: as many as decode
    **dict.fromkeys(("long_gop", "short_gop", "open_gop", "fragmented", "mpeg4_b_frames", "mpeg4_in_mp4", "vp9"), 40),
    **dict.fromkeys(("transport_stream", "raw", "gif", "uneven_times", "late_start", "rotated"), 40),
    **dict.fromkeys(("packed", "flv", "program_stream", "mpeg2_in_avi", "without_keyframe_table", "intra_refresh"), 40),
    "one_frame": 1,
    "colon": 3,
    "damaged": None,
    "truncated": None,
}
AT_ONCE = ("long_gop", "short_gop", "open_gop", "fragmented", "uneven_times", "late_start", "rotated")
AFTER_A_PASS = ("vp9", "mpeg4_b_frames", "mpeg4_in_mp4", "packed", "raw", "gif", "flv", "mpeg2_in_avi")


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
    cache.forget_memory()


@pytest.mark.parametrize("name", NAMES)
def test_frames_of_another_size_equal_those_of_a_whole_pass(videos, name):
    """Scaling depends on what a frame says of its colours, so on how its decoder was made."""
    info = video_info(videos[name])
    size = Display().size(info.height, info.width, short_side=32)
    frames = [frame for frame, _ in frames_in_order(find_file(videos[name])) if frame is not None]
    scaler = Scaler()
    truth = np.stack([scaler.to_rgb(frame, size, Display(info.rotation)) for frame in frames])
    for numbers in ([len(frames) - 1], [len(frames) // 2, 0]):
        np.testing.assert_array_equal(load_video(videos[name], numbers, short_side=32), truth[numbers])


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


def access(path: Path) -> str:
    found = find_index(find_file(path))
    return found.access if found.known else "not known"


@pytest.mark.parametrize("name", AT_ONCE)
def test_good_files_are_read_at_random_at_once(videos, name):
    load_video(videos[name], [3, 35])
    assert access(videos[name]) == "direct"


@pytest.mark.parametrize(
    ("name", "way"),
    [*((name, "direct") for name in AFTER_A_PASS), ("transport_stream", "seek"), ("program_stream", "seek")],
)
def test_other_files_are_read_at_random_after_a_whole_pass(videos, name, way):
    assert access(videos[name]) == "not known"
    truth = decode_all(videos[name])
    assert video_info(videos[name]).num_frames == len(truth)
    for numbers in ([35, 38], [4], [len(truth) - 1, 0]):
        np.testing.assert_array_equal(load_video(videos[name], numbers), truth[numbers])
    assert access(videos[name]) == way


def test_reads_from_the_start_end_when_they_cost_as_much_as_the_whole(videos):
    truth = decode_all(videos["vp9"])
    for number, way in ((15, "not known"), (20, "not known"), (9, "direct"), (12, "direct")):
        np.testing.assert_array_equal(load_video(videos["vp9"], [number])[0], truth[number])
        assert access(videos["vp9"]) == way


@pytest.mark.parametrize("name", ["mpeg2_in_avi", "transport_stream", "program_stream", "flv", "short_gop"])
def test_few_packets_are_decoded_for_a_late_frame(videos, name, monkeypatch):
    video_info(videos[name])
    decoded = []
    decode = random_access._decode
    noted = lambda packets: (decoded.append(packet) or packet for packet in packets)  # noqa: E731
    monkeypatch.setattr(random_access, "_decode", lambda run, codec, packets: decode(run, codec, noted(packets)))
    load_video(videos[name], [36])
    assert 1 <= len(decoded) <= 20  # of 40


@pytest.mark.parametrize("name", AT_ONCE)
def test_ffmpeg_seeks_where_packets_are_not_plain_in_the_file(videos, name, monkeypatch):
    monkeypatch.setattr(scan, "_matching_settings", lambda *args: None)
    truth = decode_all(videos[name])
    for numbers in ([35], [38, 3], [39, 0, 12]):
        np.testing.assert_array_equal(load_video(videos[name], numbers), truth[numbers])
    assert access(videos[name]) == "seek"


@pytest.mark.parametrize("name", ["mpeg2_in_avi", "transport_stream"])
def test_an_index_that_lies_is_found_out(videos, name):
    truth = decode_all(videos[name])
    video_info(videos[name])
    found = find_index(find_file(videos[name]))
    found.positions = np.roll(found.positions, 1)
    np.testing.assert_array_equal(load_video(videos[name], [36, 2]), truth[[36, 2]])
    assert access(videos[name]) == "order"


@pytest.mark.parametrize("name", ["without_keyframe_table", "intra_refresh"])
def test_keyframes_that_are_none(videos, name):
    truth = decode_all(videos[name])
    for number in range(39, 0, -5):
        np.testing.assert_array_equal(load_video(videos[name], [number])[0], truth[number])


def test_damage_is_noticed_and_read_in_order(videos, capfd):
    assert 0 < video_info(videos["truncated"]).num_frames < 40
    load_video(videos["damaged"])
    assert access(videos["damaged"]) == "order"
    assert not video_info(videos["damaged"]).random_access
    assert capfd.readouterr() == ("", "")


def test_far_frames_are_reached_by_seeking(videos):
    found = find_index(find_file(videos["short_gop"]))
    runs = list(random_access.plan(found, [0, 4, 35]))
    assert [run.wanted for run in runs] == [[0, 4], [35]]
    assert runs[0].first == found.keys[0] < runs[1].first == found.keys[3]


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
    frames = load_video(path)
    assert frames.shape == (12, 48, 80, 3)
    np.testing.assert_array_equal(frames[:6], load_video(wide))
    for numbers in ([8, 1], [8]):  # of the size of the first frame of the video, whatever is asked for
        np.testing.assert_array_equal(load_video(path, numbers), frames[numbers])
        assert load_video(path, numbers, short_side=32).shape[1:] == (32, 53, 3)


def sequential_times(path: Path) -> list[float]:
    with av.open(f"file:{path}") as container:
        container.flags &= ~1  # times that are not in the file are not to be made up
        return [math.nan if frame.time is None else frame.time for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    "name", ["long_gop", "short_gop", "transport_stream", "flv", "uneven_times", "late_start", "vp9"]
)
def test_times_are_those_of_the_frames(videos, name):
    times = sequential_times(videos[name])
    np.testing.assert_allclose(frame_times(videos[name]), times, rtol=0, atol=1e-9)
    frames = load_frames(videos[name], [30, 2, 99], short_side=24)
    np.testing.assert_array_equal(frames.images, load_video(videos[name], [30, 2, 99], short_side=24))
    np.testing.assert_array_equal(frames.numbers, [30, 2, 39])
    np.testing.assert_array_equal(frames.pts_seconds, frame_times(videos[name])[[30, 2, 39]])


def test_times_where_packets_lack_them(videos):
    # In AVI only the order of decoding has times, which is FFmpeg's best effort for frames as well.
    times = frame_times(videos["mpeg4_b_frames"])
    assert len(times) == 40
    assert (np.diff(times[np.isfinite(times)]) > 0).all()
    assert video_info(videos["mpeg4_b_frames"]).fps == pytest.approx(25)
    assert len(load_frames(videos["mpeg4_b_frames"]).pts_seconds) == 40


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0.0, 0.5, 1.0], [0.0, 0.5, 1.0]),
        ([math.nan, 0.5, math.nan, 1.5, math.nan, math.nan], [0.4, 0.5, 1.0, 1.5, 1.6, 1.7]),
        ([math.nan, math.nan, math.nan], [0.0, 0.1, 0.2]),
    ],
)
def test_missing_times_follow_the_rate(times, expected):
    np.testing.assert_allclose(reader._complete(np.array(times), 10.0), expected)


def test_complete_times_allow_sampling_in_time(videos):
    for name in ("mpeg4_b_frames", "raw"):
        assert np.isnan(frame_times(videos[name])).any()
        times = frame_times(videos[name], complete=True)
        np.testing.assert_allclose(np.diff(times), 1 / 25, atol=1e-6)
        assert clip_indices(40, num_frames=4, fps=12.5, times=times) == [16, 18, 20, 22]


def test_bytes_are_read_like_the_file(videos):
    for name in ("long_gop", "mpeg4_b_frames", "transport_stream", "packed"):
        data = videos[name].read_bytes()
        np.testing.assert_array_equal(load_video(data, [35, 2]), load_video(videos[name], [35, 2]))
        assert video_info(data) == video_info(videos[name])
    for data, reason in ((b"", "the file is empty"), (b"Not a video.\n" * 40, "not a video that FFmpeg can open")):
        with pytest.raises(VideoError, match=f"<bytes>: {reason}"):
            load_video(data)


def test_bytes_have_the_name_that_is_given():
    with pytest.raises(VideoError, match="shard-000.tar/7.mp4: not a video that FFmpeg can open"):
        load_video(NamedBytes(b"Not a video." * 40, "shard-000.tar/7.mp4"))


def draw_many(path: Path, seed: int) -> int:
    generator = random.Random(seed)
    return sum(int(load_video(path, [generator.randrange(40)])[0, 4, 4, 0]) for _ in range(20))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers(videos, method):
    paths = [videos["long_gop"], videos["mpeg4_b_frames"], videos["transport_stream"]] * 2
    here = [draw_many(path, seed) for seed, path in enumerate(paths)]
    with multiprocessing.get_context(method).Pool(2) as pool:
        there = pool.starmap_async(draw_many, list(zip(paths, range(len(paths)), strict=True)))
        assert there.get(timeout=120) == here


def test_no_file_stays_open(videos):
    before = len(os.listdir("/proc/self/fd"))
    for name in ("long_gop", "mpeg4_b_frames", "transport_stream", "damaged"):
        load_video(videos[name], [20])
    assert len(os.listdir("/proc/self/fd")) == before


def test_video_info(videos):
    info = video_info(videos["short_gop"])
    assert (info.num_frames, info.height, info.width) == (40, 48, 80)
    assert info.fps == pytest.approx(25)
    assert info.duration_seconds == pytest.approx(1.6)
    assert (info.codec, info.container, info.rotation) == ("h264", "matroska,webm", 0)
    assert info.num_bytes == videos["short_gop"].stat().st_size
    assert (info.num_corrupt, info.variable_rate, info.random_access) == (0, False, True)
    assert video_info(videos["rotated"]).rotation == -90
    assert video_info(videos["uneven_times"]).variable_rate
    assert video_info(videos["truncated"]).num_corrupt > 0
    last_time = (39 + 39 * 39 // 9) / 25
    assert video_info(videos["uneven_times"]).fps == pytest.approx(39 / last_time)


def test_index_is_built_once_for_a_file_and_again_when_it_changes(tmp_path, videos, monkeypatch):
    opened = []
    build = cache.build_index
    monkeypatch.setattr(cache, "build_index", lambda file: opened.append(file) or build(file))
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
        ("folder", "is a folder without pictures, expected a video file or a folder of pictures"),
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
