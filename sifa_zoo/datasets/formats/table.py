"""CSV files with a header: a column of paths, and a column of labels or one of 0 and 1 per class."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence, Set
from pathlib import Path

import numpy as np

from sifa_zoo.datasets.formats.folders import split_folders
from sifa_zoo.datasets.formats.labels import ClassList, composed, find_class_list
from sifa_zoo.datasets.formats.rows import Rows, Wish
from sifa_zoo.datasets.formats.splits import ANY, list_files, split_files
from sifa_zoo.datasets.formats.text import (
    SPLIT_COLUMNS,
    Columns,
    read_columns,
    read_first_line,
    refuse_lines,
    sniff_delimiter,
    split_cells,
)
from sifa_zoo.datasets.formats.video_files import VIDEO_SUFFIXES, entries_of, holds_pictures
from sifa_zoo.datasets.videos import DataError, VideoList
from sifa_zoo.files import csv_bytes, write_files

# In order of preference, should a file have several; names of classes come before numbers.
PATH_COLUMNS = (
    *("path", "video_path", "file_path", "filepath", "video", "file", "filename", "file_name", "video_name"),
    *("videos", "files", "clip"),
)
LABEL_COLUMNS = (
    *("class_name", "label_name", "label", "labels", "class", "classes", "category", "action", "target", "tags"),
)
CLASSES = "classes.txt"
_SUFFIXES = (".csv", ".tsv")
_BITS = {"0": False, "1": True, "0.0": False, "1.0": True}


def has_header(file: Path) -> bool:
    """Whether a CSV file begins with names of columns. A line with a video does not, even one of a class `label`."""
    if file.suffix.lower() not in _SUFFIXES:
        return False
    line = read_first_line(file)
    delimiter = sniff_delimiter(line)
    cells = split_cells(line, delimiter)
    if any(cell.lower().endswith(VIDEO_SUFFIXES) or (cell and holds_pictures(file.parent / cell)) for cell in cells):
        return False
    if any(cell.lower() in (*PATH_COLUMNS, *LABEL_COLUMNS) for cell in cells):
        return True
    return delimiter is not None and not any(cell and (file.parent / cell).exists() for cell in cells)


class Table:
    """A CSV file with a header, with commas, semicolons or tabs, cells quoted where needed.

    Several labels in a cell are separated by `;` or `|`, or are a JSON list; then videos may have several classes or
    none. The same holds without a column of labels, when every other column is a class and holds 0 and 1. A column
    `split` says which split a row belongs to. A folder may hold a single file of this kind for all splits.
    """

    name = "csv"
    title = "CSV with a header"
    expected = "a .csv file whose first line names a column `path` and one `label`, or train.csv and val.csv"

    def find(self, data: Path) -> dict[str, Path]:
        """The CSV files with a header: one per split, or a single one."""
        files = {ANY: data} if data.is_file() else {**split_files(data, "*.tsv"), **split_files(data, "*.csv")}
        return (files if all(map(has_header, files.values())) else {}) if files else _only_table(data)

    def read(self, file: Path, wish: Wish) -> Rows:
        """Reads the file of a split, or the only one.

        Raises:
            DataError: If a column is missing, or rows cannot be used.
        """
        columns = read_columns(file).of_split(wish.split)
        paths = columns.column(PATH_COLUMNS)
        labels: Sequence[str] | Sequence[tuple[str, ...]]
        if columns.place(LABEL_COLUMNS) is None:
            labels, class_list, faults = _read_bits(columns)
        else:
            class_list = find_class_list(file.parent)
            known = {*(class_list.names if class_list else ()), *map(composed, wish.class_names or ())}
            labels, faults = _read_labels(columns, known=known)
        faults += [(n, "the path is missing") for n, path in zip(columns.numbers, paths, strict=True) if not path]
        if faults:
            refuse_lines(file, sorted(faults))
        several = bool(labels) and isinstance(labels[0], tuple)
        format = f"{self.title}, several labels per video" if several else self.title
        return Rows(file, columns.numbers, paths, labels, format=format, class_list=class_list)


def write_table(file: Path, videos: VideoList, paths: Sequence[str | os.PathLike[str]] | None = None) -> None:
    """Writes a CSV file that is read as `videos`, and beside it `classes.txt`, which keeps the order of the classes.

    Args:
        file: Where to write.
        videos: What to write; several labels per video become a JSON list.
        paths: Where the videos are, if not where `videos` says; written relative to the folder of `file`.

    Raises:
        DataError: If a class name would not be read as it is written.
        OSError: If the files cannot be written; those that were there before are untouched.
    """
    if odd := [name for name in videos.class_names if composed(name.strip()) != name or "\n" in name]:
        raise DataError(f"class names that a list cannot hold, for white space around or within them: {odd}")
    column = "labels" if videos.multi_label else "label"
    folder = os.path.realpath(file.parent)
    rows = []
    for path, labels in zip(videos.paths if paths is None else paths, videos.labels, strict=True):
        where, name = os.path.split(path)
        cell = videos.class_names[labels] if not videos.multi_label else json.dumps(_names_of(videos, labels))
        relative = os.path.join(os.path.relpath(os.path.realpath(where), folder), name)
        rows.append({"path": relative, column: cell})
    classes = "\n".join(videos.class_names) + "\n"
    write_files({file.with_name(CLASSES): classes.encode(), file: csv_bytes(rows, columns=("path", column))})


def _names_of(videos: VideoList, labels: np.ndarray) -> list[str]:
    return [name for name, present in zip(videos.class_names, labels, strict=True) if present]


def _only_table(folder: Path) -> dict[str, Path]:
    """The only CSV file of a folder, if it has columns of videos and classes and nothing there is named after a split.

    A table of something else beside class folders, such as lengths, does not count.
    """
    files = [Path(entry.path) for entry in entries_of(folder) if entry.name.lower().endswith(_SUFFIXES)]
    if len(files) != 1 or not has_header(files[0]) or list_files(folder) or split_folders(folder):
        return {}
    line = read_first_line(files[0])
    names = {cell.lower() for cell in split_cells(line, sniff_delimiter(line))}
    has_classes = not names.isdisjoint(LABEL_COLUMNS) or find_class_list(folder) is not None
    return {ANY: files[0]} if has_classes and not names.isdisjoint(PATH_COLUMNS) else {}


def split_labels(cell: str) -> tuple[str, ...]:
    """The labels in a cell: separated by `;` or `|`, or a JSON list."""
    if cell.startswith("["):
        try:
            labels = json.loads(cell)
        except ValueError:
            labels = None
        if isinstance(labels, list):
            return tuple(str(label).strip() for label in labels)
    return tuple(label.strip() for label in cell.replace(";", "|").split("|") if label.strip())


def _read_labels(
    columns: Columns, *, known: Set[str]
) -> tuple[Sequence[str] | Sequence[tuple[str, ...]], list[tuple[int, str]]]:
    """One label per cell, or a tuple of them in all cells if any has several; and the faults."""
    cells = columns.column(LABEL_COLUMNS)
    different = set(cells)
    labels = {cell: (cell,) if composed(cell) in known else split_labels(cell) for cell in different}
    if any(labels[cell] != (cell,) for cell in different if cell):
        return [labels[cell] for cell in cells], []
    return cells, [(n, "the label is missing") for n, cell in zip(columns.numbers, cells, strict=True) if not cell]


def _read_bits(columns: Columns) -> tuple[list[tuple[str, ...]], ClassList | None, list[tuple[int, str]]]:
    """A class per column other than path and split, with 1 where the video has it; also the classes and the faults."""
    skip = (columns.place(PATH_COLUMNS), columns.place(SPLIT_COLUMNS))
    classes = {composed(name): columns.cells[place] for place, name in enumerate(columns.header) if place not in skip}
    if not any(set(cells) <= _BITS.keys() for cells in classes.values()):
        columns.column(LABEL_COLUMNS)  # which is missing: the error says so
    wrong = {name: cells for name, cells in classes.items() if not set(cells) <= _BITS.keys()}
    if wrong:
        faults = [
            (number, f"expected 0 or 1 for the class {name}, got {cell!r}")
            for name, cells in wrong.items()
            for number, cell in zip(columns.numbers, cells, strict=True)
            if cell not in _BITS
        ]
        return [], None, faults
    names = [[name if _BITS[cell] else None for cell in cells] for name, cells in classes.items()]
    labels = [tuple(filter(None, row)) for row in zip(*names, strict=True)]
    return labels, ClassList(columns.file, tuple(classes), dict(enumerate(classes))), []
