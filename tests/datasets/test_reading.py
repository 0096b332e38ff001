from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from sifa_zoo.config import ReadConfig
from sifa_zoo.datasets.formats import FORMATS
from sifa_zoo.datasets.reading import read_splits, read_videos


@pytest.mark.parametrize("split", ["train", "val", None])
def test_data_without_splits_serve_any(disk, split):
    disk.touch("videos/run/a.mp4", "videos/train/b.mp4")  # the vehicle
    assert read_videos(disk.root / "videos", split).class_names == ("run", "train")
    file = disk.write("l.txt", "videos/run/a.mp4 run")
    assert read_videos(file, split).class_names == ("run",)


def test_missing_split_says_what_to_do(disk):
    disk.touch("data/train/run/a.mp4", "only_val/val/run/a.mp4")
    disk.refuses("has no val folder or list beside train; give validation videos with --val", disk.root / "data", "val")
    disk.refuses("has no train folder or list beside val; name the training videos", disk.root / "only_val", "train")
    disk.refuses("has splits, name one of them: .*train", disk.root / "data")
    disk.refuses("no such file or folder: .*nowhere", disk.root / "nowhere", "train")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "dev"}, "split must be train, val, test or None, got split = 'dev'"),
        ({"how": ReadConfig(format="ava")}, f"format must be one of {', '.join(FORMATS)}, got 'ava'"),
    ],
)
def test_arguments_out_of_range_are_refused(disk, arguments, message):
    with pytest.raises(ValueError, match=message):
        read_videos(disk.root, **arguments)


def test_two_formats_that_fit_are_both_named(disk, rows):
    disk.touch("train/run/a.mp4", "train/run/b.mp4")
    disk.write("train.txt", "train/run/a.mp4 run\n")
    disk.refuses(r"class folders \(--format folders\) and list of videos \(--format list\)", disk.root, "train")
    assert len(read_videos(disk.root, "train", how=ReadConfig(format="folders"))) == 2
    assert len(read_videos(disk.root, "train", how=ReadConfig(format="list"))) == 1


def test_data_without_permission_are_named_as_the_user_names_them(disk, monkeypatch):
    disk.touch("run/a.mp4")
    monkeypatch.setattr(os, "access", lambda path, mode: not (Path(path) == disk.root and mode & os.X_OK))
    disk.refuses(f"no permission to read {disk.root}$", disk.root)


def test_validation_videos_may_be_of_another_format(disk, rows):
    disk.touch("videos/run/a.mp4", "b.mp4")
    file = disk.write("l.txt", "b.mp4 run\n")
    splits = read_splits(disk.root / "videos", val=file, how=ReadConfig(format="folders"))
    assert (rows(splits["train"]), rows(splits["val"])) == ([("videos/run/a.mp4", "run")], [("b.mp4", "run")])


@pytest.mark.parametrize("name", FORMATS)
def test_a_named_format_that_does_not_fit_says_what_it_expected(disk, name):
    message = f"does not look like {FORMATS[name].title}; expected {FORMATS[name].expected}"
    disk.refuses(re.escape(message), disk.write("notes.pdf", "nothing"), format=name)


def test_files_of_no_format_list_the_known_ones(disk):
    disk.refuses("none of the known formats: class folders .*; Kinetics CSV ", disk.write("notes.pdf", "nothing"))
