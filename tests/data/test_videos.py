from __future__ import annotations

from pathlib import Path

import pytest

from sifa_zoo.data.videos import DataError, VideoList, check_trainable


def test_one_class_cannot_be_trained():
    check_trainable(VideoList((Path("a"), Path("b")), (0, 1), ("run", "jump")))
    with pytest.raises(DataError, match="at least two classes, got 1: run"):
        check_trainable(VideoList((Path("a"), Path("b")), (0, 0), ("run", "jump")))


def test_video_list_checks_itself():
    with pytest.raises(ValueError, match="expected a label for each path, got 1 and 2"):
        VideoList((Path("a"),), (0, 1), ("run", "jump"))
    with pytest.raises(ValueError, match=r"labels must be in \[0, 2\)"):
        VideoList((Path("a"),), (2,), ("run", "jump"))
