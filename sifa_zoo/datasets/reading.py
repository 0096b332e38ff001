"""Reads what a user names as data: which format it has, which of its files, their rows, the videos; or which shards."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from sifa_zoo.config import ReadConfig
from sifa_zoo.datasets.formats import FOLDERS, FORMATS, KNOWN_SETS, LISTS, Format
from sifa_zoo.datasets.formats.folders import split_folders
from sifa_zoo.datasets.formats.rows import Wish, make_videos
from sifa_zoo.datasets.formats.splits import ANY, SPLIT_NAMES, SPLITS, pick_split
from sifa_zoo.datasets.shard_list import FORMAT, ShardList, find_shards
from sifa_zoo.datasets.videos import DataError, VideoList

_Found: TypeAlias = tuple[Format, dict[str, Path]]  # a format, and its files by split


def read_videos_or_shards(
    data: str | os.PathLike[str],
    split: str | None = None,
    class_names: Sequence[str] | None = None,
    how: ReadConfig = ReadConfig(),
) -> VideoList | ShardList:
    """Reads the videos that `data` names; or finds its shards, if it names any or the format is "webdataset".

    Args:
        data: As for `read_videos`, or for `find_shards`.
        split: As for `read_videos`.
        class_names: As for `read_videos`.
        how: As for `read_videos`; the format may also be "webdataset".

    Raises:
        DataError: As from `read_videos`, `find_shards` and `ShardList`.
        LibraryError: If shards need a library that is not installed.
        ValueError: If an argument is out of range, or missing videos are allowed for shards.
    """
    videos = _read_any(data, split, class_names, how)
    if how.allow_missing and isinstance(videos, ShardList):
        raise ValueError("allow_missing is for lists: shards name no video that they do not hold")
    return videos


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
    found = _recognise(data, split, how.format)
    if found is None:
        hint = "which are a stream, not a list of videos: read them with ShardDataset"
        raise DataError(f"{Path(data)} holds shards, {hint}")
    return _read(found, data, split, class_names, how)


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
    how_val = how if val is None else replace(how, format=None)
    val_videos = read_videos(data if val is None else val, "val", class_names or train.class_names, how_val)
    if val is None and np.array_equal(train.paths, val_videos.paths):
        return {"videos": train}
    return {"train": train, "val": val_videos}


def read_splits_or_shards(
    data: str | os.PathLike[str], *, val: str | os.PathLike[str] | None = None, how: ReadConfig = ReadConfig()
) -> dict[str, VideoList | ShardList]:
    """The splits as from `read_splits`; `data` or `val` may also name shards, which lack no videos.

    Args:
        data: As for `read_videos_or_shards`.
        val: Where the validation videos are, if not in `data`.
        how: As for `read_splits`.

    Raises:
        DataError: As from `read_videos_or_shards`.
        LibraryError: If shards need a library that is not installed.
    """
    train = _read_any(data, "train", None, how)
    how_val = how if val is None else replace(how, format=None)
    val_videos = _read_any(data if val is None else val, "val", train.class_names, how_val)
    if val is None and _sources(train) == _sources(val_videos):
        return {"videos": train}
    return {"train": train, "val": val_videos}


def is_pattern(data: str) -> bool:
    """Whether this names shards but is no path: a URL, or a pattern with braces."""
    return "://" in data or data.startswith("pipe:") or ("{" in data and not os.path.exists(data))


def _sources(videos: VideoList | ShardList) -> list[str]:
    return videos.shards if isinstance(videos, ShardList) else videos.paths.tolist()


def _read_any(
    data: str | os.PathLike[str], split: str | None, class_names: Sequence[str] | None, how: ReadConfig
) -> VideoList | ShardList:
    """As `read_videos_or_shards`, but does not mind that shards lack no videos."""
    name = os.fspath(data)
    named = how.format == FORMAT or (how.format is None and (is_pattern(name) or name.endswith(".tar")))
    found = None if named else _recognise(data, split, how.format)
    if found is not None:
        return _read(found, data, split, class_names, how)
    return ShardList(find_shards(data, split), class_names, remap=how.remap)


def _recognise(data: str | os.PathLike[str], split: str | None, name: str | None) -> _Found | None:
    """The format of this name, or the only one that fits; None for shards."""
    if split not in (*SPLITS, None):
        raise ValueError(f"split must be train, val, test or None, got {split = }")
    if name is not None and name not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {name!r}")
    path = Path(data)
    if not path.exists():
        raise DataError(f"no such file or folder: {path}")
    if not os.access(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK):
        raise DataError(f"no permission to read {path}")
    if name is not None:
        format = FORMATS[name]
        if files := format.find(path):
            return format, files
        raise DataError(f"{path} does not look like {format.title}; expected {format.expected}")
    if found := _only_fitting(path):
        return found
    if path.name.endswith(".tar") or any(any((path / place).glob("*.tar")) for place in (".", *SPLIT_NAMES)):
        return None
    if path.is_file():
        known = "; ".join(f"{format.title} ({format.expected})" for format in FORMATS.values())
        raise DataError(f"{path} has none of the known formats: {known}")
    return FOLDERS, {ANY: path}  # whose error says what is missing


def _only_fitting(data: Path) -> _Found | None:
    """The only format that fits.

    Known data sets have file names and headers of their own, so they come first. Beside lists, or a single CSV file
    with a header, folders merely hold the videos, unless they are named train and val.
    """
    folders = (FOLDERS,) if data.is_dir() and split_folders(data) else ()
    for formats in (KNOWN_SETS, (*folders, *LISTS), (FOLDERS,)):
        fitting = [(format, files) for format in formats if (files := format.find(data))]
        if len(fitting) > 1:
            names = " and ".join(f"{format.title} (--format {format.name})" for format, _ in fitting)
            raise DataError(f"{data} could be {names}: say which")
        if fitting:
            return fitting[0]
    return None


def _read(
    found: _Found,
    data: str | os.PathLike[str],
    split: str | None,
    class_names: Sequence[str] | None,
    how: ReadConfig,
) -> VideoList:
    format, files = found
    wish = Wish(Path(data), split, None if class_names is None else tuple(class_names), how)
    with _without_garbage_collection():
        rows = format.read(pick_split(wish.data, files, split), wish)
        return make_videos(rows, wish)


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
