from __future__ import annotations

import re
import unicodedata

import pytest

from sifa_zoo.config import ReadConfig
from sifa_zoo.datasets.reading import read_videos


@pytest.mark.parametrize(
    ("name", "text", "labels", "class_names"),
    [
        ("l.txt", "a.mp4 0\nsub/b c.MP4 2\n", ("0", "2"), ("0", "1", "2")),
        ("l.txt", "\ufeffa.mp4\t1\r\n\r\nsub/b c.MP4   00\r\n\n", ("1", "0"), ("0", "1")),
        ("l.txt", "a.mp4 run\nsub/b c.MP4 jump", ("run", "jump"), ("jump", "run")),
        ("l.txt", "a.mp4\tup hand\nsub/b c.MP4\tjump", ("up hand", "jump"), ("jump", "up hand")),
        ("l.txt", "a.mp4 10\nsub/b c.MP4 run", ("10", "run"), ("10", "run")),
        ("l.txt", "./a.mp4 run\nsub//b c.MP4 jump", ("run", "jump"), ("jump", "run")),
        ("l.txt", "a.mp4 120 run\nsub/b c.MP4 64 jump\n", ("run", "jump"), ("jump", "run")),
        ("l.txt", "a.mp4\t120\tup hand\nsub/b c.MP4\t64\tjump\n", ("up hand", "jump"), ("jump", "up hand")),
        ("l.csv", "a.mp4,run\nsub/b c.MP4, high jump\n", ("run", "high jump"), ("high jump", "run")),
        ("l.csv", 'a.mp4;"run, fast"\n"sub/b c.MP4";jump\n', ("run, fast", "jump"), ("jump", "run, fast")),
        ("l.csv", "a.mp4,120,run\nsub/b c.MP4,64,jump\n", ("run", "jump"), ("jump", "run")),
        ("l.csv", "a.mp4 1\nsub/b c.MP4 0\n", ("1", "0"), ("0", "1")),
        ("l.csv", "a.mp4,action\nsub/b c.MP4,class\n", ("action", "class"), ("action", "class")),
    ],
)
def test_lists(disk, rows, name, text, labels, class_names):
    disk.touch("a.mp4", "sub/b c.MP4")
    videos = read_videos(disk.write(name, text))
    assert rows(videos) == [("a.mp4", labels[0]), ("sub/b c.MP4", labels[1])]
    assert videos.class_names == class_names


@pytest.mark.parametrize(
    ("names", "text", "paths", "format"),
    [
        (("walk/",), "walk 12 0\n", ["walk"], "list of `path frames label` lines"),
        (("walk 12/",), "walk 12 0\n", ["walk 12"], "list of `path label` lines"),  # the disk decides
        (("walk 1/", "b.mp4"), "walk 1 0\nb.mp4 1\n", ["walk 1", "b.mp4"], "list of `path label` lines"),
    ],
)
def test_numbers_of_frames_are_told_from_paths(disk, rows, names, text, paths, format):
    disk.touch(*names)
    videos = read_videos(disk.write("l.txt", text))
    assert [path for path, _ in rows(videos)] == paths
    assert videos.format == format


def test_a_folder_of_pictures_is_no_header(disk, rows):
    disk.touch("walk/", "video/a.mp4")
    assert rows(read_videos(disk.write("l.csv", "walk,action\n"))) == [("walk", "action")]
    file = disk.write("t.csv", "video,label\nvideo/a.mp4,run\n")  # where `video` is a folder, too
    assert rows(read_videos(file)) == [("video/a.mp4", "run")]


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".TXT", ".CSV"])
def test_split_lists(disk, rows, suffix):
    disk.touch("videos/a.mp4", "videos/b.mp4")
    disk.write(f"train{suffix}", "videos/a.mp4 run")
    disk.write(f"my_val{suffix}", "videos/b.mp4 run")
    assert rows(read_videos(disk.root, "train")) == [("videos/a.mp4", "run")]
    assert rows(read_videos(disk.root, "val")) == [("videos/b.mp4", "run")]


def test_absolute_paths(disk, rows):
    disk.touch("far/a.mp4")
    videos = read_videos(disk.write("lists/l.txt", f"{disk.root}/far/a.mp4 0\n"))
    assert rows(videos) == [("far/a.mp4", "0")]


def test_ways_upwards_are_straightened(disk, rows):
    disk.touch("far/deep/b.mp4", "far/c.mp4", "lists/c.mp4", "a.mp4")
    (disk.root / "lists" / "link").symlink_to("../far/deep")
    file = disk.write("lists/l.txt", "../a.mp4 run\n./link/../c.mp4 jump\nlink/b.mp4 jump\n")
    assert [path for path, _ in rows(read_videos(file))] == ["a.mp4", "far/c.mp4", "lists/link/b.mp4"]


@pytest.mark.parametrize("again", ["../lists/v/a.mp4", "link/a.mp4"])
def test_a_video_spelt_in_two_ways_is_one(disk, capsys, again):
    disk.touch("lists/v/a.mp4")
    (disk.root / "lists" / "link").symlink_to("v")
    file = disk.write("lists/l.txt", f"v/a.mp4 run\n{again} jump\n")
    disk.refuses("1 videos in .* come twice, with different labels: .*/lists/v/a.mp4", file)
    read_videos(disk.write("lists/l.txt", f"v/a.mp4 run\n{again} run\n"))
    assert "1 rows of" in capsys.readouterr().err


@pytest.mark.parametrize(("on_disk", "in_list"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_may_be_composed_otherwise_than_on_the_disk(disk, rows, on_disk, in_list):
    name = "kicks/é/ü.mp4"
    disk.touch(unicodedata.normalize(on_disk, name), "b.mp4")
    text = f"{unicodedata.normalize(in_list, name)} {unicodedata.normalize(in_list, 'tänzeln')}\nb.mp4 run\n"
    videos = read_videos(disk.write("l.txt", text))
    assert rows(videos)[0] == (unicodedata.normalize(on_disk, name), unicodedata.normalize("NFC", "tänzeln"))


def test_many_videos_of_one_folder(disk, rows):
    names = [f"v/{i}.mp4" for i in range(100)]
    disk.touch(*names)
    (disk.root / "v" / "link.mp4").symlink_to("0.mp4")
    names += ["v/link.mp4"]
    text = "".join(f"{name} run\n" for name in names)
    assert [path for path, _ in rows(read_videos(disk.write("l.txt", text)))] == names
    file = disk.write("l.txt", text + "v/gone.mp4 run\n")
    disk.refuses("1 of 102 videos in .* do not exist: line 102: v/gone.mp4", file)


@pytest.mark.parametrize(
    ("text", "class_names", "messages"),
    [
        ("", None, "no videos in the list .*l.txt; expected lines of path and label"),
        ("a.mp4 0\n\na.mp4\n", None, "l.txt, line 3: expected `path label`, got 'a.mp4'"),
        ("a b.mp4\n", None, "l.txt, line 1: expected `path label`, got 'a b.mp4'"),
        ("a.mp4 0\na.mp4 -1\n", None, "l.txt, line 2: labels count from 0, got -1"),
        ("a.mp4 99999999", None, "line 1: labels count from 0 without large gaps, got 99999999"),
        ("a.mp4\n\nb\na.mp4 0\n", None, ["l.txt has 2 faulty lines:", "line 1: expected .*'a.mp4'", "line 3: .*'b'"]),
        (
            "a.mp4 run\na.mp4 jump",
            ["run", "walk"],
            r"not among the 2 classes \(run, walk\): jump \(line 2\); leave them out",
        ),
        ("a.mp4 0\nb.mp4 1", None, "1 of 2 videos in .*l.txt do not exist: line 2: b.mp4; --allow-missing"),
        ("https://x.org/b.mp4 run\n", None, "https://x.org/b.mp4; URLs are not opened: download the videos, and list"),
        ("c\\b.mp4 run\n", None, r"c\\b.mp4; folders are separated by /, not by \\; --allow-missing"),
        (".\\a.mp4 run\n", None, r"folders are separated by /, not by \\: ./a.mp4 is there; --allow-missing"),
        (
            "a.mp4 1999\na.mp4 2005",
            None,
            r"numbers \(1999, 2005\), which .* 2,006 classes, only 2 .*: list .*classes.txt",
        ),
        ("a.mp4 run\n./a.mp4 jump", None, "1 videos in .*l.txt come twice, with different labels: .*a.mp4"),
    ],
)
def test_unusable_lists_are_refused(disk, text, class_names, messages):
    disk.touch("a.mp4")
    disk.refuses(messages, disk.write("l.txt", text), class_names=class_names)


@pytest.mark.parametrize(
    ("name", "text", "label"),
    [
        ("l.csv", "a.mp4,red\nb.mp4,red|bright\n", "red|bright"),
        ("l.csv", "a.mp4,12,red\nb.mp4,12,red;bright\n", "red;bright"),
        ("l.csv", 'a.mp4,red\nb.mp4,"[""red"", ""bright""]"\n', '["red", "bright"]'),
        ("l.csv", "a.mp4 red\nb.mp4 red|bright\n", "red|bright"),
        ("l.txt", "a.mp4 red\nb.mp4 red|bright\n", "red|bright"),
    ],
)
def test_several_labels_need_a_header(disk, rows, name, text, label):
    disk.touch("a.mp4", "b.mp4")
    file = disk.write(name, text)
    message = rf"several in one: {re.escape(label)} \(line 2\); if they are, .* `path,labels`; if each .*classes.txt$"
    disk.refuses(message, file)
    one_class = [("a.mp4", "red"), ("b.mp4", label)]
    assert rows(read_videos(file, class_names=("red", label))) == one_class
    disk.write("classes.txt", f"red\n{label}\n")
    assert rows(read_videos(file)) == one_class


def test_at_most_twenty_faults_are_named(disk):
    for label, message in (" 0", "30 of 30 videos .* and 10 more; "), ("", "and 10 more$"):
        file = disk.write("l.txt", "".join(f"{i}.mp4{label}\n" for i in range(30)))
        assert disk.refuses(message, file).count(".mp4") == 20


def test_missing_videos_may_be_left_out(disk, rows, capsys):
    disk.touch("a.mp4")
    file = disk.write("l.txt", "a.mp4 run\nb.mp4 jump\n")
    videos = read_videos(file, how=ReadConfig(allow_missing=True))
    assert (rows(videos), videos.num_missing, videos.class_names) == ([("a.mp4", "run")], 1, ("jump", "run"))
    assert "warning: 1 of 2 videos in" in capsys.readouterr().err
    file = disk.write("l.txt", "b.mp4 jump\n")
    disk.refuses("1 of 1 videos .* do not exist: line 1: b.mp4$", file, allow_missing=True)


def test_repeated_rows_are_said_aloud(disk, capsys):
    disk.touch("a.mp4")
    assert len(read_videos(disk.write("l.txt", "a.mp4 run\na.mp4 run\n"))) == 2
    assert "warning: 1 rows of" in capsys.readouterr().err


def test_lists_must_be_text_in_utf8(disk):
    disk.refuses("is not a text file in UTF-8", disk.write("l.txt", "é.mp4 0", encoding="latin-1"))


def test_a_header_is_no_video(disk):
    disk.touch("a.mp4")
    file = disk.write("l.csv", "clipname,klass\na.mp4,run\n")
    disk.refuses("has no column path or .*; its columns are clipname, klass", file)
