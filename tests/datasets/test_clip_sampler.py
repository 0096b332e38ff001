from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from sifa_zoo.datasets.clip_sampler import ClipSampler
from sifa_zoo.datasets.videos import VideoList


def _videos(*counts: int) -> VideoList:
    labels = np.repeat(np.arange(len(counts)), counts)
    return VideoList([f"{i}.mp4" for i in range(len(labels))], labels, [f"class {i}" for i in range(len(counts))])


def test_training_shuffles_by_seed_and_epoch():
    videos = _videos(30, 20)
    sampler = ClipSampler(videos, seed=3)
    first = list(sampler)
    assert sorted(first) == [(i, 0) for i in range(50)]
    assert first != sorted(first)
    assert list(sampler) == first == list(ClipSampler(videos, seed=3))
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(ClipSampler(videos, seed=4)) != first


def test_evaluation_takes_each_video_once_and_in_order():
    parts = [list(ClipSampler(_videos(7), rank=rank, num_replicas=3)) for rank in range(3)]
    assert parts[0] == [(0, 0), (3, 0), (6, 0)]
    assert sorted(chain(*parts)) == [(i, 0) for i in range(7)]
    assert [len(ClipSampler(_videos(7), rank=rank, num_replicas=3)) for rank in range(3)] == [3, 2, 2]


@pytest.mark.parametrize("settings", [{}, {"repeats": 2}, {"balance": 1.0}, {"balance": 0.5, "repeats": 3}], ids=str)
def test_ranks_together_see_what_one_process_does(settings):
    videos = _videos(8, 5)
    whole = list(ClipSampler(videos, seed=0, **settings))
    parts = [ClipSampler(videos, seed=0, rank=rank, num_replicas=4, **settings) for rank in range(4)]
    keys = [list(part) for part in parts]
    assert [len(part) for part in parts] == [len(key) for key in keys] == [3 * settings.get("repeats", 1)] * 4
    assert len(set(chain(*keys))) == 12 * settings.get("repeats", 1)
    repeats = settings.get("repeats", 1)
    turns = [key for i in range(3) for part in keys for key in part[i * repeats : (i + 1) * repeats]]
    assert turns == whole[: 12 * repeats]


def test_repeats_follow_one_another_and_are_other_draws():
    sampler = ClipSampler(_videos(4), seed=0, repeats=3)
    keys = list(sampler)
    assert len(sampler) == len(keys) == 12
    assert [draw for _, draw in keys] == [0, 1, 2] * 4
    assert all(len({index for index, _ in keys[i : i + 3]}) == 1 for i in range(0, 12, 3))
    assert sorted({index for index, _ in keys}) == [0, 1, 2, 3]


@pytest.mark.parametrize(("balance", "share"), [(0.5, 10**0.5 / (1 + 10**0.5)), (1.0, 0.5)])
def test_balance(balance, share):
    sampler = ClipSampler(_videos(2000, 200), seed=0, balance=balance)
    indices = np.array([index for index, _ in sampler])
    assert len(indices) == 2200
    assert (indices < 2000).mean() == pytest.approx(share, abs=0.04)


def test_a_video_drawn_again_gives_another_clip():
    keys = list(ClipSampler(_videos(20, 2), seed=0, balance=1.0, repeats=2))
    assert len(set(keys)) == len(keys) == 44
    draws = [draw for index, draw in keys if index == 20]
    assert draws == list(range(len(draws)))
    assert len(draws) > 2


@pytest.mark.parametrize("start", [0, 1, 5, 5000, 9000])
def test_a_pass_can_start_anywhere(start):
    videos = _videos(4500)
    sampler = ClipSampler(videos, seed=0, repeats=2)
    sampler.set_epoch(2)
    whole = list(sampler)
    sampler.set_epoch(2, start=start)
    assert list(sampler) == whole[start:]
    assert len(sampler) == 9000  # of the whole epoch


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": 0, "repeats": 0}, "repeats must be at least 1 and balance in"),
        ({"seed": 0, "balance": 1.5}, "repeats must be at least 1 and balance in"),
        ({"seed": 0, "rank": 2, "num_replicas": 2}, r"rank must be in \[0, num_replicas\), got rank = 2"),
        ({"repeats": 2}, "balance and repeats are for training: they need a seed"),
        ({"seed": 0, "num_replicas": 4}, "3 training videos cannot be divided among 4 processes"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ClipSampler(_videos(3), **settings)


def test_balance_refuses_videos_with_several_classes():
    several = VideoList(["a", "b"], np.array([[True, True], [False, True]]), ["x", "y"])
    with pytest.raises(ValueError, match="balance needs one class per video"):
        ClipSampler(several, seed=0, balance=0.5)
    assert len(list(ClipSampler(several, seed=0))) == 2


def test_start_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"start must be in \[0, 3\], got start = 4"):
        ClipSampler(_videos(3), seed=0).set_epoch(0, start=4)
