"""Reads whatever a user names as data, in the format that it is found, or said, to have."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from sifa_zoo.config import ReadConfig
from sifa_zoo.datasets.formats.folders import ClassFolders, split_folders
from sifa_zoo.datasets.formats.hmdb51 import Hmdb51
from sifa_zoo.datasets.formats.kinetics import Kinetics
from sifa_zoo.datasets.formats.lists import ListFile
from sifa_zoo.datasets.formats.rows import Wish
from sifa_zoo.datasets.formats.something import SomethingV1, SomethingV2
from sifa_zoo.datasets.formats.splits import LIST_SUFFIXES, SPLIT_NAMES, SPLITS
from sifa_zoo.datasets.formats.table import Table
from sifa_zoo.datasets.formats.ucf101 import Ucf101
from sifa_zoo.datasets.videos import DataError, VideoList


class Format(Protocol):
    """A way of laying out a data set on disk."""

    name: str  # for --format
    title: str  # for messages
    expected: str  # the files that belong to it, in words

    def recognise(self, data: Path) -> bool:
        """Whether the data has this format, judged by names and first lines alone."""

    def read(self, data: Path, wish: Wish) -> VideoList:
        """Reads the data.

        Raises:
            DataError: If it cannot be used.
        """


_FOLDERS = ClassFolders()
_LISTS: tuple[Format, ...] = (ListFile(), Table())
_KNOWN_SETS: tuple[Format, ...] = (Kinetics(), SomethingV1(), SomethingV2(), Ucf101(), Hmdb51())
FORMATS: dict[str, Format] = {format.name: format for format in (_FOLDERS, *_LISTS, *_KNOWN_SETS)}


def read_videos(
    data: str | os.PathLike[str],
    split: str | None = None,
    class_names: Sequence[str] | None = None,
    how: ReadConfig = ReadConfig(),
) -> VideoList:
    """Reads the labelled videos of a data set; docs/data.md shows the formats.

    Args:
        data: A folder or file in one of the formats.
        split: `train`, `val` or `test`; None where `data` has no splits. Where there is no `val`, `test` takes its
            place.
        class_names: The classes that labels must belong to, in order, as when weights bring them. None takes those of
            the data.
        how: The format (one of `FORMATS`; None recognises it from the files), the remap of labels (`index`: labels
            are places in `class_names`; or a file of `label of the data set,class of the weights`), whether rows
            whose video does not exist are left out with a warning, and the fold of UCF101 and HMDB51.

    Raises:
        DataError: If there is no such path or split, or no permission to read it, if no format fits or two do, or if
            the data cannot be used.
        ValueError: If an argument is out of range.
    """
    if split not in (*SPLITS, None):
        raise ValueError(f"split must be train, val, test or None, got {split = }")
    if how.format is not None and how.format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {how.format!r}")
    path = Path(data)
    if not path.exists():
        raise DataError(f"no such file or folder: {path}")
    if not os.access(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK):
        raise DataError(f"no permission to read {path}")
    names = None if class_names is None else tuple(class_names)
    with _without_garbage_collection():
        return _choose(path, how.format).read(path, Wish(split, names, how))


def has_shards(data: str | os.PathLike[str]) -> bool:
    """Whether this names WebDataset shards: a tar file, a pattern, a URL, or a folder of them in no other format."""
    name = os.fspath(data)
    if is_pattern(name) or name.endswith(".tar"):
        return True
    folder = Path(name)
    places = (folder, *(folder / name for name in SPLIT_NAMES))
    return any(any(place.glob("*.tar")) for place in places) and _fitting(folder) is None


def is_pattern(data: str) -> bool:
    """Whether this names shards but is no path: a URL, or a pattern with braces."""
    return "://" in data or data.startswith("pipe:") or ("{" in data and not os.path.exists(data))


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Looking for cycles among millions of new rows takes Python longer than reading them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_splits(
    data: str | os.PathLike[str],
    *,
    val: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
    how: ReadConfig = ReadConfig(),
) -> dict[str, VideoList]:
    """The splits `train` and `val` of a data set; or all of it as `videos` where it has no splits.

    Args:
        data: As for `read_videos`.
        val: Where the validation videos are, if not in `data`.
        class_names: As for `read_videos`.
        how: As for `read_videos`; the format is that of `data`, not of `val`.

    Raises:
        DataError: As from `read_videos`; and if there is one split but not the other.
    """
    train = read_videos(data, "train", class_names, how)
    if val is None:
        val_videos = read_videos(data, "val", class_names or train.class_names, how)
    else:
        val_videos = read_videos(val, "val", class_names or train.class_names, replace(how, format=None))
    if val is None and np.array_equal(train.paths, val_videos.paths):
        return {"videos": train}
    return {"train": train, "val": val_videos}


def _choose(data: Path, name: str | None) -> Format:
    """The format of this name, or the only one that fits.

    Known data sets have file names and headers of their own, so they come first. Beside lists, or a single CSV file
    with a header, folders merely hold the videos, unless they are named train and val.
    """
    if name is not None:
        format = FORMATS[name]
        if not format.recognise(data):
            raise DataError(f"{data} does not look like {format.title}; expected {format.expected}")
        return format
    if fitting := _fitting(data):
        return fitting
    if has_shards(data):
        raise DataError(f"{data} holds shards, which are a stream, not a list of videos: read them with ShardDataset")
    if data.is_file() and data.suffix.lower() not in LIST_SUFFIXES:
        raise DataError(f"{data} has none of the known formats: {_known()}")
    return FORMATS["list" if data.is_file() else "folders"]  # whose error says what is missing


def _fitting(data: Path) -> Format | None:
    folders = (_FOLDERS,) if data.is_dir() and split_folders(data) else ()
    for formats in (_KNOWN_SETS, (*folders, *_LISTS), (_FOLDERS,)):
        fitting = [format for format in formats if format.recognise(data)]
        if len(fitting) > 1:
            names = " and ".join(f"{format.title} (--format {format.name})" for format in fitting)
            raise DataError(f"{data} could be {names}: say which")
        if fitting:
            return fitting[0]
    return None


def _known() -> str:
    return "; ".join(f"{format.title} ({format.expected})" for format in FORMATS.values())
