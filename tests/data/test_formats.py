from __future__ import annotations

from pathlib import Path

import pytest

from sifa_zoo.data.formats import read_folders, read_list, read_videos
from sifa_zoo.data.videos import DataError, VideoList


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def _list(file: Path, text: str, encoding: str = "utf-8") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode(encoding))
    return file


def rows(videos: VideoList) -> list[tuple[Path, int]]:
    return [(videos.path(i), int(label)) for i, label in enumerate(videos.labels)]


def test_folders(tmp_path):
    _touch(tmp_path, "run/b.mp4", "run/a.AVI", "jump/c.webm", "jump/notes.txt", "jump/.d.mp4", ".cache/e.mp4", "f.mp4")
    videos = read_folders(tmp_path)
    assert videos.class_names == ("jump", "run")
    assert [str(Path(path).relative_to(tmp_path)) for path in videos.paths] == ["jump/c.webm", "run/a.AVI", "run/b.mp4"]
    assert videos.labels.tolist() == [0, 1, 1]
    assert len(videos) == 3


def test_folders_follow_given_class_names(tmp_path):
    _touch(tmp_path, "run/b.mp4", "jump/c.mp4")
    videos = read_folders(tmp_path, ["walk", "run", "jump"])
    assert videos.class_names == ("walk", "run", "jump")
    assert videos.labels.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("names", "class_names", "message"),
    [
        ((), None, "no class folders in .*; expected .*/CLASS/VIDEO"),
        (("a.mp4",), None, "no class folders in"),
        (("run/a.txt", "jump/b.jpg"), None, "no videos in the class folders of .*; known are .mp4"),
        (("run/a.mp4", "jump/b.jpg"), None, "class folders of .* without videos: jump; fill or remove them"),
        (("run/a.mp4", "jump/b.mp4"), ["run"], r"not among the 1 classes \(run\): jump"),
    ],
)
def test_unusable_folders_are_refused(tmp_path, names, class_names, message):
    with pytest.raises(DataError, match=message):
        read_folders(_touch(tmp_path, *names), class_names)


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder: .*nowhere"):
        read_folders(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "text", "labels", "class_names"),
    [
        ("l.txt", "a.mp4 0\nsub/b c.mp4 2\n", (0, 2), ("0", "1", "2")),
        ("l.txt", "\ufeffa.mp4\t1\r\n\r\nsub/b c.mp4   00\r\n\n", (1, 0), ("0", "1")),
        ("l.txt", "a.mp4 run\nsub/b c.mp4 jump", (1, 0), ("jump", "run")),
        ("l.txt", "a.mp4 10\nsub/b c.mp4 run", (0, 1), ("10", "run")),
        ("l.csv", "a.mp4,run\nsub/b c.mp4, high jump\n", (1, 0), ("high jump", "run")),
        ("l.csv", "a.mp4 1\nsub/b c.mp4 0\n", (1, 0), ("0", "1")),
    ],
)
def test_lists(tmp_path, name, text, labels, class_names):
    _touch(tmp_path, "a.mp4", "sub/b c.mp4")
    videos = read_list(_list(tmp_path / name, text))
    assert rows(videos) == [(tmp_path / "a.mp4", labels[0]), (tmp_path / "sub/b c.mp4", labels[1])]
    assert videos.class_names == class_names


@pytest.mark.parametrize(
    ("labels", "class_names", "expected"),
    [
        (("run", "jump"), ("walk", "run", "jump"), (1, 2)),
        (("2", "0"), ("walk", "run", "jump"), (2, 0)),  # places
        (("2", "0"), ("2", "1", "0"), (0, 2)),  # names that happen to be numbers
    ],
)
def test_lists_follow_given_class_names(tmp_path, labels, class_names, expected):
    _touch(tmp_path, "a.mp4", "b.mp4")
    videos = read_list(_list(tmp_path / "l.txt", f"a.mp4 {labels[0]}\nb.mp4 {labels[1]}"), class_names)
    assert (tuple(videos.labels), videos.class_names) == (expected, class_names)


def test_absolute_paths_in_a_list(tmp_path):
    _touch(tmp_path, "far/a.mp4")
    videos = read_list(_list(tmp_path / "lists/l.txt", f"{tmp_path}/far/a.mp4 0"))
    assert rows(videos) == [(tmp_path / "far/a.mp4", 0)]


@pytest.mark.parametrize(
    ("text", "class_names", "message"),
    [
        ("", None, "no videos in the list .*l.txt; expected lines of `path label`"),
        ("a.mp4 0\n\na.mp4\n", None, "l.txt, line 3: expected `path label`, got 'a.mp4'"),
        ("a.mp4 0\na.mp4 -1\n", None, "l.txt, line 2: labels count from 0, got -1"),
        ("a.mp4 run\na.mp4 jump", ["run", "walk"], r"line 2: label jump is not among the 2 classes \(run, walk\)"),
        ("a.mp4 0\na.mp4 2", ["run", "walk"], "line 2: label 2 is not among the 2 classes"),
        ("a.mp4 0\nb.mp4 1", None, "1 of 2 videos in .*l.txt do not exist: line 2: .*b.mp4"),
    ],
)
def test_unusable_lists_are_refused(tmp_path, text, class_names, message):
    _touch(tmp_path, "a.mp4")
    with pytest.raises(DataError, match=message):
        read_list(_list(tmp_path / "l.txt", text), class_names)


def test_at_most_twenty_missing_videos_are_named(tmp_path):
    file = _list(tmp_path / "l.txt", "".join(f"{i}.mp4 0\n" for i in range(30)))
    with pytest.raises(DataError, match="30 of 30 videos .* and 10 more$") as error:
        read_list(file)
    assert str(error.value).count(".mp4") == 20


def test_lists_must_be_readable_text(tmp_path):
    with pytest.raises(DataError, match="cannot read the list .*: No such file"):
        read_list(tmp_path / "l.txt")
    with pytest.raises(DataError, match="is not a text file in UTF-8"):
        read_list(_list(tmp_path / "l.txt", "é.mp4 0", encoding="latin-1"))


@pytest.mark.parametrize("val", ["val", "test"])
def test_split_folders(tmp_path, val):
    _touch(tmp_path, "train/run/a.mp4", "train/jump/b.mp4", f"{val}/run/c.mp4")
    train = read_videos(tmp_path, "train")
    assert train.class_names == ("jump", "run")
    videos = read_videos(tmp_path, "val", train.class_names)
    assert rows(videos) == [(tmp_path / val / "run/c.mp4", 1)]
    assert videos.class_names == ("jump", "run")


@pytest.mark.parametrize("suffix", [".txt", ".csv"])
def test_split_lists(tmp_path, suffix):
    _touch(tmp_path, "videos/a.mp4", "videos/b.mp4")
    _list(tmp_path / f"train{suffix}", "videos/a.mp4 run")
    _list(tmp_path / f"val{suffix}", "videos/b.mp4 run")
    assert rows(read_videos(tmp_path, "train")) == [(tmp_path / "videos/a.mp4", 0)]
    assert rows(read_videos(tmp_path, "val")) == [(tmp_path / "videos/b.mp4", 0)]


@pytest.mark.parametrize("split", ["train", "val", None])
def test_data_without_splits_serve_any(tmp_path, split):
    _touch(tmp_path, "videos/run/a.mp4", "videos/train/b.mp4")  # the vehicle
    assert read_videos(tmp_path / "videos", split).class_names == ("run", "train")
    file = _list(tmp_path / "l.txt", "videos/run/a.mp4 run")
    assert read_videos(file, split).class_names == ("run",)


def test_missing_split_says_what_to_do(tmp_path):
    _touch(tmp_path, "data/train/run/a.mp4", "only_val/val/run/a.mp4")
    with pytest.raises(DataError, match="has no val folder or list beside train; give validation videos with --val"):
        read_videos(tmp_path / "data", "val")
    with pytest.raises(DataError, match="has no train folder or list beside val; name the training videos"):
        read_videos(tmp_path / "only_val", "train")
    with pytest.raises(DataError, match="has splits, name one of them: .*train"):
        read_videos(tmp_path / "data")
    with pytest.raises(DataError, match="no such file or folder: .*nowhere"):
        read_videos(tmp_path / "nowhere", "train")
    with pytest.raises(ValueError, match="split must be train, val or None, got split = 'dev'"):
        read_videos(tmp_path, "dev")


def test_videos_without_class_folders_are_named(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.mp4").touch()
    with pytest.raises(DataError, match="train holds no class folders"):
        read_videos(tmp_path, "train")
    (tmp_path / "train" / "wave").mkdir()
    with pytest.raises(DataError, match="val holds no class folders"):
        read_videos(tmp_path, "val")


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("a b.mp4", "line 1: expected `path label`, got only the path"),
        ("a b.mp4 99999999", "line 1: labels count from 0"),
    ],
)
def test_lists_with_a_label_missing_or_out_of_all_proportion(tmp_path, line, match):
    (tmp_path / "a b.mp4").touch()
    (tmp_path / "list.txt").write_text(f"{line}\n")
    with pytest.raises(DataError, match=match):
        read_list(tmp_path / "list.txt")


def test_labels_after_a_tab_may_hold_spaces(tmp_path):
    (tmp_path / "a b.mp4").touch()
    (tmp_path / "list.txt").write_text("a b.mp4\tup hand\n")
    assert read_list(tmp_path / "list.txt").class_names == ("up hand",)
