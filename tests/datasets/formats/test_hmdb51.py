from __future__ import annotations

import pytest

from sifa_zoo.config import ReadConfig
from sifa_zoo.datasets.reading import read_videos


@pytest.fixture
def hmdb51(disk):
    disk.touch("videos/brush_hair/a #1.avi", "videos/brush_hair/b.avi", "videos/wave/a #1.avi", "videos/wave/c.mp4")
    disk.write("splits/brush_hair_test_split1.txt", "a #1.avi 1 \nb.avi 2 \n")
    disk.write("splits/wave_test_split1.txt", "a #1.avi 1 \nc.avi 0 \n")
    disk.write("splits/wave_test_split2.txt", "c.avi 1 \n")
    return disk


def test_folds(hmdb51, rows):
    train = read_videos(hmdb51.root, "train")
    assert rows(train) == [("videos/brush_hair/a #1.avi", "brush_hair"), ("videos/wave/a #1.avi", "wave")]
    assert rows(read_videos(hmdb51.root, "val", train.class_names)) == [("videos/brush_hair/b.avi", "brush_hair")]
    second = read_videos(hmdb51.root, "train", how=ReadConfig(fold=2))
    assert (rows(second), second.format) == ([("videos/wave/c.mp4", "wave")], "HMDB51, fold 2")


def test_what_cannot_be_used(hmdb51):
    hmdb51.refuses("has splits, name train or val", hmdb51.root)
    hmdb51.refuses("has no files CLASS_test_split3.txt", hmdb51.root, "val", fold=3)
    hmdb51.write("splits/wave_test_split1.txt", "a #1.avi 1\ngone.avi 1\n")
    hmdb51.refuses("1 of 3 videos in .*splits do not exist: video 3: wave/gone.avi", hmdb51.root, "train")
    hmdb51.write("splits/wave_test_split1.txt", "a.avi 3\nc.avi\n")
    message = "(?s)2 faulty lines.*line 1: expected `NAME.avi` and 0, 1 or 2, got 'a.avi 3'"
    hmdb51.refuses(message, hmdb51.root, "train")


def test_classes_called_by_numbers(disk):
    disk.touch("7/a.avi", "12/b.avi")
    disk.write("7_test_split1.txt", "a.avi 1\n")
    disk.write("12_test_split1.txt", "b.avi 1\n")
    assert read_videos(disk.root, "train").class_names == ("12", "7")
