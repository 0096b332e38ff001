from __future__ import annotations

import os

import pytest

from sifa_zoo.datasets.formats.video_files import existing_videos, walk_videos
from sifa_zoo.video.picture_folder import PICTURE_SUFFIXES


def test_walk_follows_links_but_not_in_circles(disk):
    root = disk.touch("a/b/c.MP4", "a/frames/", "a/notes.txt", ".hidden/d.mp4", "far/e.mkv")
    (root / "a" / "b" / "up").symlink_to(root)
    (root / "a" / "near").symlink_to(root / "far")
    (root / "a" / "self").symlink_to("self")
    found = [os.path.relpath(path, root) for path in walk_videos(root / "a")]
    assert found == ["a/b/c.MP4", "a/b/up/far/e.mkv", "a/frames", "a/near/e.mkv"]


@pytest.mark.parametrize("suffix", PICTURE_SUFFIXES)
def test_all_pictures_that_are_decoded_are_found(disk, suffix):
    root = disk.touch(f"run/a/1{suffix}")
    assert list(walk_videos(root)) == [str(root / "run" / "a")]


def test_find_looks_at_files_and_folders_of_pictures(disk):
    root = disk.touch("a.mp4", "frames/", "empty/notes.txt")
    names = ["a.mp4", "frames", "empty", "gone.mp4", "gone/b.mp4"]
    paths = [f"{root}/{name}" for name in names]
    assert existing_videos(paths) == [*paths[:2], None, None, None]
    many = [f"{root}/{i}.mp4" for i in range(100)]  # for so many the folder is read
    assert existing_videos([*many, *paths]) == [None] * 100 + existing_videos(paths)
