"""Labelled videos from what people have: class folders and lists."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sifa_zoo.data.videos import DataError, VideoList, few

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".m2v", ".ts", ".mts", ".m2ts", ".vob"),
    *(".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".gif", ".h264", ".h265", ".divx"),
)
_SPLITS = {"train": ("train",), "val": ("val", "test")}
_LIST_SUFFIXES = (".txt", ".csv")
_MAX_LABEL = 100_000


def read_videos(
    data: str | os.PathLike[str], split: str | None = None, class_names: Sequence[str] | None = None
) -> VideoList:
    """Reads whatever a user names as data.

    Args:
        data: A folder with `train` and `val` (or `test`), each a folder of class folders or a list `train.txt`,
            `val.txt` (or `.csv`); or directly one folder of class folders, or one list, which then serves any split.
        split: `train`, `val`, or None where `data` has no splits.
        class_names: The classes that labels must belong to, in order, as when weights bring them. None: taken from
            the data.

    Raises:
        DataError: If there is no such path or split, or the folder or list cannot be used.
        ValueError: If `split` is unknown.
    """
    if split not in (*_SPLITS, None):
        raise ValueError(f"split must be train, val or None, got {split = }")
    data = Path(data)
    if data.is_file():
        return read_list(data, class_names)
    if not data.is_dir():
        raise DataError(f"no such file or folder: {data}")
    splits = {name: _find_split(data, names) for name, names in _SPLITS.items()}
    found = {name: path for name, path in splits.items() if path is not None}
    flat = [data / name for names in _SPLITS.values() for name in names if (data / name).is_dir()]
    if not found and flat and all(path in flat for path in data.iterdir() if path.is_dir()):
        raise DataError(f"{flat[0]} holds no class folders; expected {flat[0]}/CLASS/VIDEO")
    if not found:
        return read_folders(data, class_names)
    if split is None:
        raise DataError(f"{data} has splits, name one of them: {', '.join(str(path) for path in found.values())}")
    if split not in found:
        if bare := [path for path in flat if path.name in _SPLITS[split]]:
            raise DataError(f"{bare[0]} holds no class folders; expected {bare[0]}/CLASS/VIDEO")
        way_out = "give validation videos with --val" if split == "val" else "name the training videos themselves"
        raise DataError(f"{data} has no {split} folder or list beside {found.popitem()[1].name}; {way_out}")
    path = found[split]
    return read_list(path, class_names) if path.is_file() else read_folders(path, class_names)


def read_folders(root: str | os.PathLike[str], class_names: Sequence[str] | None = None) -> VideoList:
    """Reads `root/CLASS/VIDEO`: classes sorted by name, videos by path; other than video files are passed over.

    Raises:
        DataError: If there are no class folders, one has no videos, or one is not among `class_names`.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"no such folder: {root}")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise DataError(
            f"no class folders in {root}; expected {root}/CLASS/VIDEO, or name a list of `path label` lines"
        )
    names = tuple(class_names) if class_names is not None else tuple(folder.name for folder in folders)
    if strangers := [folder.name for folder in folders if folder.name not in names]:
        raise DataError(f"class folders of {root} that are not among the {_classes(names)}: {few(strangers)}")
    videos = [(path, names.index(folder.name)) for folder in folders for path in _videos_in(folder)]
    filled = {path.parent for path, _ in videos}
    if not filled:
        raise DataError(f"no videos in the class folders of {root}; known are {', '.join(VIDEO_SUFFIXES)}")
    if empty := [folder.name for folder in folders if folder not in filled]:
        raise DataError(f"class folders of {root} without videos: {few(empty)}; fill or remove them")
    return VideoList([path for path, _ in videos], [label for _, label in videos], names)


def read_list(file: str | os.PathLike[str], class_names: Sequence[str] | None = None) -> VideoList:
    """Reads lines of `path label`, separated by the last white space (in .csv files by the last comma, if any).

    Paths are relative to the list. If all labels are numbers and no names are given, the classes are called `0`, `1`
    and so on up to the highest; otherwise labels are names, or, where names are given, places among them.

    Raises:
        DataError: If a line has no label or one that is unknown, a video does not exist, or there are no lines.
    """
    file = Path(file)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not a text file in UTF-8; expected lines of `path label`") from error
    except OSError as error:
        raise DataError(f"cannot read the list {file}: {error.strerror}") from error
    rows = [(number, *_split_line(file, number, line)) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise DataError(f"no videos in the list {file}; expected lines of `path label`")
    labels, names = _number_labels(file, [(number, label) for number, _, label in rows], class_names)
    paths = tuple(file.parent / path for _, path, _ in rows)  # an absolute path stays as it is
    for number, path, label in rows:
        if (file.parent / f"{path} {label}").is_file():
            raise DataError(f"{file}, line {number}: expected `path label`, got only the path {path} {label}")
    missing = [f"line {number}: {path}" for (number, *_), path in zip(rows, paths, strict=True) if not path.is_file()]
    if missing:
        raise DataError(f"{len(missing)} of {len(rows)} videos in {file} do not exist: {few(missing)}")
    return VideoList(paths, labels, names)


def _find_split(data: Path, names: Sequence[str]) -> Path | None:
    """The folder or list of a split. A folder without folders inside is no split, but a class of that name."""
    for name in names:
        folder = data / name
        if folder.is_dir() and any(path.is_dir() for path in folder.iterdir()):
            return folder
        for suffix in _LIST_SUFFIXES:
            if (file := data / f"{name}{suffix}").is_file():
                return file
    return None


def _videos_in(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _split_line(file: Path, number: int, line: str) -> tuple[str, str]:
    comma = file.suffix.lower() == ".csv" and "," in line
    parts = line.rsplit("," if comma else "\t" if "\t" in line.strip() else None, 1)
    fields = [part.strip() for part in parts]
    if len(fields) < 2 or not all(fields):
        raise DataError(f"{file}, line {number}: expected `path label`, got {line.strip()!r}")
    return fields[0], fields[1]


def _number_labels(
    file: Path, labels: list[tuple[int, str]], class_names: Sequence[str] | None
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Turns the labels of numbered lines into places in the class names, which are returned too."""
    if negative := next(
        ((number, label) for number, label in labels if label[1:].isdecimal() and label[0] == "-"), None
    ):
        raise DataError(f"{file}, line {negative[0]}: labels count from 0, got {negative[1]}")
    if huge := next(
        ((number, label) for number, label in labels if label.isdecimal() and int(label) > _MAX_LABEL), None
    ):
        raise DataError(f"{file}, line {huge[0]}: labels count from 0 without large gaps, got {huge[1]}")
    all_numbers = all(label.isdecimal() for _, label in labels)
    if class_names is not None:
        names = tuple(class_names)
    elif all_numbers:
        names = tuple(str(i) for i in range(max(int(label) for _, label in labels) + 1))
    else:
        names = tuple(sorted({label for _, label in labels}))
    places = {name: place for place, name in enumerate(names)}
    if all_numbers and not all(label in places for _, label in labels):
        places = {str(place): place for place in range(len(names))}
        labels = [(number, str(int(label))) for number, label in labels]  # 007 is 7
    for number, label in labels:
        if label not in places:
            raise DataError(f"{file}, line {number}: label {label} is not among the {_classes(names)}")
    return tuple(places[label] for _, label in labels), names


def _classes(names: Sequence[str]) -> str:
    return f"{len(names)} classes ({few(names)})"
