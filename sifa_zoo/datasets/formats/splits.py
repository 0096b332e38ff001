"""The splits of a data set: files, folders and rows named train, val or test."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path

from sifa_zoo.datasets.videos import DataError

# Names that each split may have on disk, in the order in which they are looked for.
SPLITS = {"train": ("train",), "val": ("val", "validation", "validate", "test"), "test": ("test",)}
SPLIT_NAMES = tuple(dict.fromkeys(chain.from_iterable(SPLITS.values())))
LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".lst", ".list")
ANY = ""  # in place of a split: the only file, which serves any
_ANNOTATIONS = ("annotations", "labels")


def split_files(folder: Path, pattern: str) -> dict[str, Path]:
    """Files of a folder by split, whose name is or ends theirs, such as `kinetics_train.csv` for `*.csv`.

    Upper and lower case are the same.

    Raises:
        DataError: If two files could be meant.
    """
    names = sorted(name for name in os.listdir(folder) if fnmatchcase(name.lower(), pattern) and name[0] != ".")
    files = [folder / name for name in names if (folder / name).is_file()]
    found = {}
    for split, endings in SPLITS.items():
        if file := next(filter(None, (_find_file(files, ending) for ending in endings)), None):
            found[split] = file
    return found


def list_files(folder: Path) -> dict[str, Path]:
    """Lists by split. Of several for one split the first by suffix is taken, so .txt before .csv."""
    found: dict[str, Path] = {}
    for suffix in LIST_SUFFIXES:
        found = {**split_files(folder, f"*{suffix}"), **found}
    return found


def _find_file(files: Sequence[Path], split: str) -> Path | None:
    exact = [file for file in files if file.stem.lower() == split]
    ending = [file for file in files if file.stem.lower().endswith(tuple(f"{mark}{split}" for mark in "-_. "))]
    found = exact or ending
    if len(found) > 1:
        raise DataError(f"{found[0]} and {found[1].name} could both be meant: name the file itself")
    return found[0] if found else None


def annotation_files(data: Path, pattern: str) -> dict[str, Path]:
    """Files by split, as from `split_files`, in the folder or where annotations usually lie below it."""
    folders = (data, *(data / name for name in _ANNOTATIONS if (data / name).is_dir()))
    return next(filter(None, (split_files(folder, pattern) for folder in folders)), {})


def beside(data: Path) -> Path:
    """The folder with the videos of annotations: `data` itself, or the one that the file `data` belongs to."""
    if data.is_dir():
        return data
    return data.parent.parent if data.parent.name in _ANNOTATIONS else data.parent


def pick_split(data: Path, found: Mapping[str, Path], split: str | None) -> Path:
    """The file or folder of a split, or the only one.

    Raises:
        DataError: If the split is not there, or none is named.
    """
    if ANY in found:
        return found[ANY]
    if split is None:
        paths = ", ".join(str(path) for path in dict.fromkeys(found.values()))
        raise DataError(f"{data} has splits, name one of them: {paths}")
    if split not in found:
        there = next(iter(found.values())).name
        way_out = "name the training videos themselves" if split == "train" else "give validation videos with --val"
        raise DataError(f"{data} has no {split} folder or list beside {there}; {way_out}")
    return found[split]


def rows_of_split(cells: Sequence[str], split: str | None, *, file: Path) -> Iterable[bool]:
    """Which rows of a file belong to a split, as a column says; where it says the same everywhere, all to any split.

    Raises:
        DataError: If no row does, or there are several splits and none is named.
    """
    found = {cell.strip().lower() for cell in cells}
    if len(found) < 2:
        return [True] * len(cells)
    if split is None:
        raise DataError(f"{file} has splits, name one of them: {', '.join(sorted(found))}")
    name = next((name for name in SPLITS[split] if name in found), None)
    if name is None:
        raise DataError(
            f"{file} has no row of the {split} split; its column of splits says only {', '.join(sorted(found))}"
        )
    return [cell.strip().lower() == name for cell in cells]
