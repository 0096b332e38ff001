from __future__ import annotations

import pytest

from sifa_zoo.config import ReadConfig
from sifa_zoo.datasets.reading import read_videos


@pytest.fixture
def ucf101(disk):
    names = ("Archery/v_Archery_g01_c01.avi", "Archery/v_Archery_g02_c01.avi", "Biking/v_Biking_g01_c01.mp4")
    disk.touch(*(f"UCF-101/{name}" for name in names))
    disk.write("ucfTrainTestlist/classInd.txt", "1 Archery\r\n2 Biking\r\n")
    disk.write(
        "ucfTrainTestlist/trainlist01.txt", "Archery/v_Archery_g01_c01.avi 1\r\nBiking/v_Biking_g01_c01.avi 2\r\n"
    )
    disk.write("ucfTrainTestlist/testlist01.txt", "Archery/v_Archery_g02_c01.avi\r\n")
    disk.write("ucfTrainTestlist/trainlist02.txt", "Archery/v_Archery_g02_c01.avi 1\n")
    return disk


def test_folds(ucf101, rows):
    train, test = read_videos(ucf101.root, "train"), read_videos(ucf101.root, "val")
    assert rows(train) == [
        ("UCF-101/Archery/v_Archery_g01_c01.avi", "Archery"),
        ("UCF-101/Biking/v_Biking_g01_c01.mp4", "Biking"),  # re-encoded
    ]
    assert rows(test) == [("UCF-101/Archery/v_Archery_g02_c01.avi", "Archery")]
    assert train.class_names == test.class_names == ("Archery", "Biking")
    second = read_videos(ucf101.root, "train", how=ReadConfig(fold=2))
    assert rows(second) == rows(test)
    assert (train.format, second.format) == ("UCF101, fold 1", "UCF101, fold 2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Archery/v_Archery_g01_c01.avi 2\n", "line 1: Archery has the number 2, which is Biking in .*classInd.txt"),
        ("\nv_Archery_g01_c01.avi 1\n", "line 2: expected `Class/v_x.avi` or `Class/v_x.avi number`, got 'v_Archery"),
        ("Archery/v_Archery_g09_c01.avi 1\n", "1 of 1 videos .* do not exist: line 1: Archery/v_Archery_g09_c01.avi"),
    ],
)
def test_lists_that_cannot_be_used(ucf101, text, message):
    ucf101.write("ucfTrainTestlist/trainlist01.txt", text)
    ucf101.refuses(message, ucf101.root, "train")


def test_split_and_fold_must_be_there(ucf101):
    ucf101.refuses("has splits, name train or val", ucf101.root)
    ucf101.refuses(r"cannot read .*testlist03.txt: No such file", ucf101.root, "val", fold=3)


def test_classes_called_by_numbers(disk):
    disk.touch("7/a.avi", "12/b.avi")
    disk.write("trainlist01.txt", "7/a.avi\n12/b.avi\n")
    assert read_videos(disk.root, "train").class_names == ("12", "7")
