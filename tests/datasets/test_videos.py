from __future__ import annotations

from pathlib import Path

import pytest

from sifa_zoo.datasets.videos import DataError, VideoList, check_trainable


def test_one_class_cannot_be_trained():
    check_trainable(VideoList((Path("a"), Path("b")), (0, 1), ("run", "jump")))
    with pytest.raises(DataError, match="at least two classes, got 1: run"):
        check_trainable(VideoList((Path("a"), Path("b")), (0, 0), ("run", "jump")))


def test_video_list_checks_itself():
    with pytest.raises(ValueError, match="expected a label for each path, got 1 and 2"):
        VideoList((Path("a"),), (0, 1), ("run", "jump"))
    with pytest.raises(ValueError, match=r"labels must be in \[0, 2\)"):
        VideoList((Path("a"),), (2,), ("run", "jump"))


def test_classes_in_another_order():
    videos = VideoList(["a", "b", "c"], [0, 1, 2], ("run", "jump", "walk"), format="a list", missing=["d", "e"])
    other = videos.with_classes(("walk", "run", "jump"))
    assert (other.labels.tolist(), other.class_names) == ([1, 2, 0], ("walk", "run", "jump"))
    assert (other.format, other.num_missing, other.paths.tolist()) == ("a list", 2, ["a", "b", "c"])
    several = videos.as_multi_label()
    assert several.labels.tolist() == [[True, False, False], [False, True, False], [False, False, True]]
    assert several.as_multi_label() is several
    assert several.with_classes(("walk", "run", "jump")).labels.argmax(1).tolist() == [1, 2, 0]


def test_names_must_be_utf8():
    with pytest.raises(DataError, match="a name that is not in UTF-8: .*; rename the file"):
        VideoList(["\udce9.mp4"], [0], ("run", "jump"))
