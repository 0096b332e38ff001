from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sifa_zoo.datasets.videos import DataError, VideoList
from sifa_zoo.preparing.split import split_videos


@pytest.fixture
def videos(tmp_path) -> VideoList:
    """Ten videos that run, four that jump, one that falls; all of other bytes."""
    paths = [tmp_path / f"{i}.mp4" for i in range(15)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]) * 8)
    return VideoList(paths, [0] * 10 + [1] * 4 + [2], ["run", "jump", "fall"])


def test_a_share_of_every_class(videos):
    parts = split_videos(videos, val_share=0.2)
    assert parts["val"].counts.tolist() == [2, 1, 0]
    assert parts["train"].counts.tolist() == [8, 3, 1]
    assert sorted([*parts["train"].paths, *parts["val"].paths]) == sorted(videos.paths)
    assert parts["val"].class_names == videos.class_names


def test_the_seed_decides(videos):
    drawn = [tuple(split_videos(videos, val_share=0.5, seed=seed)["val"].paths) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_same_bytes_stay_together(videos):
    for path in videos.paths[:5]:
        Path(path).write_bytes(b"the same")
    for seed in range(10):
        parts = split_videos(videos, val_share=0.3, seed=seed)
        together = [set(videos.paths[:5]) & set(part.paths) for part in parts.values()]
        assert sorted(map(len, together)) == [0, 5]


def test_what_cannot_be_split_is_refused(videos):
    with pytest.raises(ValueError, match=r"val_share must be in \(0, 1\), got 1"):
        split_videos(videos, val_share=1)
    with pytest.raises(DataError, match="several labels"):
        split_videos(VideoList(["a"], np.array([[True, False]]), ["run", "jump"]), val_share=0.5)
    with pytest.raises(DataError, match="no class has two different videos"):
        split_videos(VideoList(["a", "b"], [0, 1], ["run", "jump"]), val_share=0.5)
