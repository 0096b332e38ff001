from __future__ import annotations

import random

import numpy as np
import pytest

from sifa_zoo.datasets.sampling import clip_indices


@pytest.mark.parametrize(
    ("num_video_frames", "settings", "expected"),
    [
        (10, {"num_frames": 4}, [3, 4, 5, 6]),  # the centre
        (10, {"num_frames": 4, "frame_stride": 3}, [0, 3, 6, 9]),  # fits exactly
        (7, {"num_frames": 4, "frame_stride": 3}, [0, 3, 6, 6]),  # too short: the last frame is repeated
        (1, {"num_frames": 4, "frame_stride": 3}, [0, 0, 0, 0]),
        (10, {"num_frames": 2, "num_clips": 3, "clip": 0}, [0, 1]),
        (10, {"num_frames": 2, "num_clips": 3, "clip": 1}, [4, 5]),
        (10, {"num_frames": 2, "num_clips": 3, "clip": 2}, [8, 9]),
        (12, {"num_frames": 4, "sampling": "uniform"}, [1, 4, 7, 10]),  # middles of four segments
        (12, {"num_frames": 2, "sampling": "uniform", "num_clips": 2, "clip": 0}, [1, 7]),
        (12, {"num_frames": 2, "sampling": "uniform", "num_clips": 2, "clip": 1}, [4, 10]),
        (3, {"num_frames": 6, "sampling": "uniform"}, [0, 0, 1, 1, 2, 2]),
        (1, {"num_frames": 3, "sampling": "uniform", "num_clips": 2, "clip": 1}, [0, 0, 0]),
    ],
)
def test_clips_without_chance(num_video_frames, settings, expected):
    assert clip_indices(num_video_frames, **settings) == expected


def test_random_dense_clips_reach_every_start():
    generator = random.Random(0)
    clips = [clip_indices(10, num_frames=3, frame_stride=2, generator=generator) for _ in range(200)]
    assert {clip[0] for clip in clips} == set(range(6))
    assert all(clip == [clip[0], clip[0] + 2, clip[0] + 4] for clip in clips)


def test_random_uniform_clips_take_one_frame_of_each_segment():
    generator = random.Random(0)
    clips = [clip_indices(10, num_frames=3, sampling="uniform", generator=generator) for _ in range(200)]
    assert [set(frames) for frames in zip(*clips, strict=True)] == [{0, 1, 2}, {3, 4, 5}, {6, 7, 8, 9}]


@pytest.mark.parametrize("sampling", ["dense", "uniform"])
@pytest.mark.parametrize("num_video_frames", [1, 2, 5, 16, 61, 300])
def test_random_clips_stay_within_the_video(sampling, num_video_frames):
    generator = random.Random(0)
    for _ in range(50):
        clip = clip_indices(num_video_frames, num_frames=16, frame_stride=4, sampling=sampling, generator=generator)
        assert len(clip) == 16
        assert clip == sorted(clip)
        assert 0 <= clip[0] <= clip[-1] < num_video_frames


def test_the_same_generator_gives_the_same_clip():
    first, second = (clip_indices(99, num_frames=4, generator=random.Random(7)) for _ in range(2))
    assert first == second


STEADY = [i / 10 for i in range(10)]  # 10 frames per second
SLOWING = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 1.5, 2.0]  # 10, then 2 frames per second


@pytest.mark.parametrize(
    ("times", "settings", "expected"),
    [
        (STEADY, {"num_frames": 4, "fps": 10}, [3, 4, 5, 6]),  # the centre, as without times
        (STEADY, {"num_frames": 4, "fps": 10, "frame_stride": 3}, [0, 3, 6, 9]),  # fits exactly
        (STEADY, {"num_frames": 4, "fps": 5}, [1, 3, 5, 7]),
        (STEADY, {"num_frames": 4, "fps": 20}, [3, 4, 4, 5]),  # faster than the video: frames are repeated
        (STEADY, {"num_frames": 2, "fps": 10, "num_clips": 3, "clip": 0}, [0, 1]),
        (STEADY, {"num_frames": 2, "fps": 10, "num_clips": 3, "clip": 1}, [4, 5]),
        (STEADY, {"num_frames": 2, "fps": 10, "num_clips": 3, "clip": 2}, [8, 9]),
        (STEADY, {"num_frames": 4, "fps": 1}, [0, 9, 9, 9]),  # too short: the last frame is repeated
        (STEADY, {"num_frames": 3, "fps": 2.5}, [0, 4, 8]),
        (SLOWING, {"num_frames": 5, "fps": 2}, [0, 5, 6, 7, 8]),
        (SLOWING, {"num_frames": 5, "fps": 4, "num_clips": 2, "clip": 1}, [6, 6, 7, 7, 8]),
        ([100 + time for time in STEADY], {"num_frames": 4, "fps": 5}, [1, 3, 5, 7]),  # a late start
        ([-0.2, -0.1, 0.0, 0.1], {"num_frames": 2, "fps": 10 / 3}, [0, 3]),
        ([0.0, 0.033, 0.067, 0.1, 0.133], {"num_frames": 5, "fps": 30}, [0, 1, 2, 3, 4]),  # rounded to milliseconds
        ([0.0, 0.2, 0.1, 0.3], {"num_frames": 4, "fps": 10}, [0, 0, 2, 3]),  # times that go back
        ([5.0], {"num_frames": 3, "fps": 10}, [0, 0, 0]),
    ],
)
def test_clips_in_time(times, settings, expected):
    assert clip_indices(len(times), times=times, **settings) == expected
    assert clip_indices(len(times), times=np.array(times), **settings) == expected


def test_random_clips_in_time_reach_every_start_and_keep_their_distance():
    generator = random.Random(0)
    clips = [clip_indices(10, num_frames=3, fps=5, times=STEADY, generator=generator) for _ in range(200)]
    assert {clip[0] for clip in clips} == set(range(6))
    assert all(clip == [clip[0], clip[0] + 2, clip[0] + 4] for clip in clips)


def test_random_clips_in_time_of_a_variable_rate():
    generator = random.Random(0)
    for _ in range(200):
        clip = clip_indices(len(SLOWING), num_frames=3, fps=2, times=SLOWING, generator=generator)
        assert clip == sorted(clip)
        assert clip[-1] > 5  # one second after its start the video is in its slow part
    assert clip_indices(2, num_frames=3, fps=1, times=[0, 0.5], generator=generator) == [0, 1, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_video_frames": 0}, "num_video_frames must be at least 1, got 0"),
        ({"num_frames": 0}, "num_frames must be at least 1, got 0"),
        ({"frame_stride": 0}, "frame_stride must be at least 1, got 0"),
        ({"num_clips": 0}, "num_clips must be at least 1, got 0"),
        ({"clip": 2, "num_clips": 2}, r"clip must be in \[0, num_clips\), got clip = 2, num_clips = 2"),
        ({"clip": -1}, r"clip must be in \[0, num_clips\), got clip = -1"),
        ({"fps": 5.0}, "fps and times go together, got one without the other"),
        ({"times": STEADY}, "fps and times go together, got one without the other"),
        ({"fps": 0.0, "times": STEADY}, "fps must be positive, got fps = 0.0"),
        ({"fps": float("nan"), "times": STEADY}, "fps must be positive, got fps = nan"),
        ({"fps": 5.0, "times": STEADY[:9]}, "times must be one per frame, got num_video_frames = 10, 9 times"),
        (
            {"fps": 5.0, "times": [*STEADY[:9], float("nan")]},
            "times must be known for sampling by fps, frame 9 has none",
        ),
        (
            {"fps": 5.0, "times": STEADY, "sampling": "uniform"},
            "fps is for dense sampling; uniform segments know no rate",
        ),
        ({"sampling": "sparse"}, "sampling must be dense or uniform, got sampling = 'sparse'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    settings = {"num_video_frames": 10, "num_frames": 4, **settings}
    with pytest.raises(ValueError, match=message):
        clip_indices(settings.pop("num_video_frames"), **settings)
