"""What a video gives depends on the file alone: not on what was asked before, nor together, nor on the cache.

The truth is what PyAV's plain loop decodes from the start with one thread, leaving out the packets that fail.
"""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import TypeAlias

import av
import numpy as np
import pytest
from av.error import FFmpegError
from broken_videos import BROKEN_VIDEOS, write_broken_videos
from odd_videos import VIDEO_NAMES

from sifa_zoo.video import cache
from sifa_zoo.video.load import VideoError, load_video, video_info

# Read in really new processes: one of each codec, container and fault.
IN_NEW_PROCESSES = (
    "damaged",
    "transport_stream",
    "h264_lost_every_7th.mp4",
    "h264_lost_keyframe_closed.ts",
    "h264_zeroed_tenth.avi",
    "h264_open_lost_first.mp4",
    "hevc_lost_burst_closed.mp4",
    "mpeg4_flipped.avi",
    "vp9_inserted.webm",
    "av1_zeroed.mkv",
)
Numbers: TypeAlias = Sequence[int] | None
Answer: TypeAlias = tuple[np.ndarray, int] | str  # frames, and how many the video has; or the error


@pytest.fixture(scope="module")
def all_videos(videos, tmp_path_factory) -> dict[str, Path]:
    return videos | write_broken_videos(tmp_path_factory.mktemp("broken"))


def decode_all(path: Path) -> np.ndarray | None:
    """All frames, upright; None if there are none."""
    frames: list[np.ndarray] = []
    with av.open(f"file:{path}") as container:
        codec = container.streams.video[0].codec_context
        codec.thread_type, codec.thread_count = "NONE", 1
        for packet in _packets(container):
            try:
                decoded = codec.decode(packet)
            except FFmpegError:
                continue
            for frame in decoded:
                image = frame.to_ndarray(format="rgb24", threads=1)
                frames.append(np.rot90(image, round(frame.rotation / 90)))
    return np.stack(frames) if frames else None


def _packets(container) -> Iterator[av.Packet | None]:
    try:
        for packet in container.demux(video=0):
            if packet.size:  # AVI has empty ones where a frame was dropped
                yield packet
    except FFmpegError:
        pass
    yield None  # gets what the decoder still holds


def ask(path: Path, numbers: Numbers) -> Answer:
    try:
        return load_video(path, numbers), video_info(path).num_frames
    except VideoError as error:
        return str(error)


def questions(num_frames: int, seed: str) -> list[Numbers]:
    """Everything, single frames, pairs in both orders, and a frame beyond the end, which stands for the last."""
    draw = random.Random(seed)
    last = num_frames - 1
    drawn = [draw.randint(0, last) for _ in range(6)]
    first, second = drawn[:2]
    return [None, [0], [first, second], [second, first], [last], [last + 5], *([number] for number in drawn)]


def check(answer: Answer, truth: np.ndarray | None, numbers: Numbers, state: str) -> None:
    said = f"frames {'all' if numbers is None else numbers}, {state}"
    if truth is None:
        assert isinstance(answer, str), said
        assert "not one frame" in answer, said
        return
    assert not isinstance(answer, str), f"{said}: {answer}"
    expected = truth if numbers is None else truth[np.minimum(numbers, len(truth) - 1)]
    assert answer[0].shape == expected.shape, said
    wrong = [i for i, (one, other) in enumerate(zip(answer[0], expected, strict=True)) if (one != other).any()]
    assert not wrong, f"{said}: other pixels in places {wrong}"
    assert answer[1] == len(truth), f"{said}: another number of frames afterwards"


@pytest.mark.parametrize("name", [*VIDEO_NAMES, *BROKEN_VIDEOS])
def test_one_answer(all_videos, name, tmp_path, monkeypatch):
    path = all_videos[name]
    truth = decode_all(path)
    asked = questions(1 if truth is None else len(truth), name)
    for numbers in asked:  # nothing is known of the file
        cache.forget_memory()
        check(ask(path, numbers), truth, numbers, "cache off")
    monkeypatch.setenv("SIFA_ZOO_INDEX", "on")
    folders = (tmp_path / str(i) for i in count())
    for numbers in asked[::3]:
        monkeypatch.setenv("SIFA_ZOO_CACHE", str(next(folders)))
        cache.forget_memory()
        check(ask(path, numbers), truth, numbers, "cold")
        cache.forget_memory()
        check(ask(path, numbers), truth, numbers, "from the index on disk")
    for numbers in asked[::2]:
        check(ask(path, numbers), truth, numbers, "warm")


@pytest.mark.parametrize("name", [*VIDEO_NAMES, *BROKEN_VIDEOS])
def test_the_number_of_frames_is_that_of_a_whole_pass(all_videos, name):
    truth = decode_all(all_videos[name])
    cache.forget_memory()
    if truth is None:
        with pytest.raises(VideoError, match="not one frame"):
            video_info(all_videos[name])
    else:
        info = video_info(all_videos[name])
        assert (info.num_frames, info.height, info.width) == truth.shape[:3]


@pytest.mark.parametrize("name", IN_NEW_PROCESSES)
def test_new_processes_give_the_same(all_videos, name, monkeypatch):
    path = all_videos[name]
    truth = decode_all(path)
    assert truth is not None
    monkeypatch.setenv("MALLOC_PERTURB_", "85")  # new memory is not zero there
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        numbers = questions(len(truth), name)[-1]
        check(pool.apply(ask, (path, numbers)), truth, numbers, "new process")
