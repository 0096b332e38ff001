from __future__ import annotations

import pytest

from sifa_zoo.datasets.formats.splits import SPLITS, annotation_files, beside, split_files
from sifa_zoo.datasets.videos import DataError


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train.txt", "val.txt"], {"train": "train.txt", "val": "val.txt"}),
        (["k400_train.txt", "k400-VALIDATE.txt"], {"train": "k400_train.txt", "val": "k400-VALIDATE.txt"}),
        (["Train.txt", "a_train.txt", "b_train.txt"], {"train": "Train.txt"}),
        (["val.txt", "test.txt"], {"val": "val.txt", "test": "test.txt"}),
        (["test.txt"], {"val": "test.txt", "test": "test.txt"}),
        (["train.TXT", "VAL.Txt"], {"train": "train.TXT", "val": "VAL.Txt"}),
        (["classes.txt", "restrain.txt", ".train.txt", "train.csv"], {}),
    ],
)
def test_files_by_split(disk, names, expected):
    disk.touch(*names)
    assert {split: path.name for split, path in split_files(disk.root, "*.txt").items()} == expected
    assert expected.keys() <= SPLITS.keys()


def test_two_files_of_a_split_are_named(disk):
    disk.touch("a_train.txt", "b_train.txt")
    with pytest.raises(DataError, match="a_train.txt and b_train.txt could both be meant: name the file itself"):
        split_files(disk.root, "*.txt")


def test_two_spellings_of_a_file_are_named(disk):
    disk.touch("train.TXT", "train.txt")
    if len(list(disk.root.iterdir())) == 2:  # on a disk that tells upper from lower case
        with pytest.raises(DataError, match="train.TXT and train.txt could both be meant"):
            split_files(disk.root, "*.txt")


def test_annotations_may_lie_below(disk):
    root = disk.touch("annotations/train.csv", "run/a.mp4")
    assert annotation_files(root, "*.csv") == {"train": root / "annotations/train.csv"}
    assert beside(root) == beside(root / "annotations/train.csv") == beside(root / "train.csv") == root
