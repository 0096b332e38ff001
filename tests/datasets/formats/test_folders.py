from __future__ import annotations

import pytest

from sifa_zoo.datasets.reading import read_videos


def test_folders(disk, rows):
    disk.touch("run/b.mp4", "run/a.AVI", "jump/c.webm", "jump/notes.txt", "jump/.d.mp4", ".cache/e.mp4", "f.mp4")
    videos = read_videos(disk.root)
    assert videos.class_names == ("jump", "run")
    assert rows(videos) == [("jump/c.webm", "jump"), ("run/a.AVI", "run"), ("run/b.mp4", "run")]
    assert (len(videos), videos.format) == (3, "class folders")


def test_folders_of_pictures_are_videos(disk, rows):
    disk.touch("run/a/", "run/b.mp4", "jump/c/", "jump/d/notes.txt", "jump/e/deep/f.mp4")
    assert rows(read_videos(disk.root)) == [("jump/c", "jump"), ("run/a", "run"), ("run/b.mp4", "run")]


def test_a_picture_beside_videos_makes_no_frames_of_them(disk, rows):
    disk.touch("train/run/a.mp4", "train/run/poster.jpg", "train/jump/b.mp4")
    assert rows(read_videos(disk.root, "train")) == [("train/jump/b.mp4", "jump"), ("train/run/a.mp4", "run")]


def test_links_are_followed_and_those_in_circles_passed_over(disk, rows):
    disk.touch("videos/run/a.mp4", "far/b.mp4")
    root = disk.root / "videos"
    (root / "jump").symlink_to(disk.root / "far")
    (root / "run" / "c.mp4").symlink_to("a.mp4")
    (root / "run" / "up").symlink_to("..")
    (root / "run" / "self.mp4").symlink_to("self.mp4")
    (root / "run" / "gone.mp4").symlink_to("nowhere.mp4")
    assert [path for path, _ in rows(read_videos(root))] == [
        "videos/jump/b.mp4",
        "videos/run/a.mp4",
        "videos/run/c.mp4",
    ]


def test_folders_follow_given_class_names(disk):
    videos = read_videos(disk.touch("run/b.mp4", "jump/c.mp4"), class_names=["walk", "run", "jump"])
    assert videos.class_names == ("walk", "run", "jump")
    assert videos.labels.tolist() == [2, 1]


@pytest.mark.parametrize("class_names", [("2021", "2022"), ("1", "2", "3"), ("007", "7"), ("-1", "1")])
def test_folders_called_by_numbers_are_classes_like_others(disk, rows, class_names):
    videos = read_videos(disk.touch(*(f"{name}/a.mp4" for name in class_names)))
    assert videos.class_names == class_names
    assert rows(videos) == [(f"{name}/a.mp4", name) for name in class_names]


@pytest.mark.parametrize(
    ("names", "class_names", "message"),
    [
        ((), None, "no class folders in .*; expected .*/CLASS/VIDEO"),
        (("a.mp4",), None, "no class folders in"),
        (("run/a.txt", "jump/b.pdf"), None, "no videos in the class folders of .*; known are .mp4"),
        (("run/a.mp4", "jump/b.jpg"), None, "class folders of .* without videos: jump; fill or remove them"),
        (("run/a.mp4", "run /b.mp4"), None, "with white space around their names, .*: 'run '; rename them"),
        (("run\nfast/a.mp4", "run/b.mp4"), None, r"line breaks or tabs in them: 'run\\nfast'; rename them"),
        (("\u00fcben/a.mp4", "u\u0308ben/b.mp4"), None, "differ only in how Unicode composes their letters: .*, .*; "),
        (("run/a.mp4", "jump/b.mp4"), ["run"], r"not among the 1 classes \(run\): jump"),
    ],
)
def test_unusable_folders_are_refused(disk, names, class_names, message):
    disk.refuses(message, disk.touch(*names), class_names=class_names)


@pytest.mark.parametrize("val", ["val", "validation", "test"])
def test_split_folders(disk, rows, val):
    disk.touch("train/run/a.mp4", "train/jump/b.mp4", f"{val}/run/c.mp4")
    train = read_videos(disk.root, "train")
    assert train.class_names == ("jump", "run")
    videos = read_videos(disk.root, "val", train.class_names)
    assert rows(videos) == [(f"{val}/run/c.mp4", "run")]
    assert videos.class_names == ("jump", "run")


def test_val_comes_before_test(disk, rows):
    disk.touch("train/run/a.mp4", "val/run/b.mp4", "test/run/c.mp4")
    assert rows(read_videos(disk.root, "val")) == [("val/run/b.mp4", "run")]
    assert rows(read_videos(disk.root, "test")) == [("test/run/c.mp4", "run")]


def test_videos_without_class_folders_are_named(disk):
    disk.touch("train/a.mp4", "val/a.mp4")
    disk.refuses("train holds no class folders", disk.root, "train")
    (disk.root / "train" / "wave").mkdir()
    disk.refuses("val holds no class folders", disk.root, "val")


def test_names_in_another_encoding_are_refused(disk):
    disk.touch("run/a.mp4", "jump/b.mp4")
    (disk.root / "run" / "\udce9.mp4").touch()
    disk.refuses("a name that is not in UTF-8: .*; rename the file", disk.root)
