"""List files: a line `path label` per video, or `path frames label` as the published SIFA code has them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from sifa_zoo.datasets.formats.labels import find_class_list
from sifa_zoo.datasets.formats.rows import Rows, Wish
from sifa_zoo.datasets.formats.splits import ANY, LIST_SUFFIXES, list_files
from sifa_zoo.datasets.formats.table import CLASSES, has_header, split_labels
from sifa_zoo.datasets.formats.text import read_cells, read_first_line, read_lines, refuse_lines, sniff_delimiter
from sifa_zoo.datasets.formats.video_files import VIDEO_SUFFIXES
from sifa_zoo.datasets.videos import DataError, few
from sifa_zoo.video.picture_folder import PICTURE_SUFFIXES

_ENDINGS = (*VIDEO_SUFFIXES, *PICTURE_SUFFIXES)
_PROBES = 1000

# Line numbers, paths and labels, and whether numbers of frames stood between these.
_Lines: TypeAlias = tuple[Sequence[int], Sequence[str], Sequence[str], bool]


class ListFile:
    """Lines of path and label, separated by the last white space or tab; in .csv files by a comma or semicolon, if any.

    Paths are absolute or relative to the list and may contain spaces; a label that contains spaces follows a tab. Where
    the field before the label is a whole number in every line, it is taken for the number of frames and ignored, unless
    the files on disk show that it belongs to the path.
    """

    name = "list"
    title = "list of videos"
    expected = "a text file of `path label` or `path frames label` lines, or train.txt and val.txt"

    def find(self, data: Path) -> dict[str, Path]:
        """The lists, judged by suffix; a CSV file with a header is not one."""
        files = {ANY: data} if data.is_file() else list_files(data)
        lists = (file.suffix.lower() in LIST_SUFFIXES and not has_header(file) for file in files.values())
        return files if all(lists) else {}

    def read(self, file: Path, wish: Wish) -> Rows:
        """Reads the list of a split, or the only one.

        Raises:
            DataError: If there are no lines, a line has no label, several or an unknown one, or a video does not exist.
        """
        delimiter = sniff_delimiter(read_first_line(file)) if file.suffix.lower() in (".csv", ".tsv") else None
        lines = _read_cells(file, delimiter) if delimiter in (",", ";") else _read_lines(file)
        numbers, paths, labels, with_frames = lines
        class_list = find_class_list(file.parent)
        if class_list is None and wish.class_names is None:
            _refuse_several_labels(file, numbers, labels)
        line = "path frames label" if with_frames else "path label"
        return Rows(file, numbers, paths, labels, format=f"list of `{line}` lines", class_list=class_list)


def _read_lines(file: Path) -> _Lines:
    numbers, paths, labels, faults = array("q"), [], [], []
    known: dict[str, str] = {}  # a label is one string however often it comes
    for number, line in read_lines(file):
        pair = line.rsplit("\t" if "\t" in line else None, 1)
        label = pair[-1].lstrip()
        if label not in known:
            known[label] = "" if label.lower().endswith(_ENDINGS) else label  # a path with spaces and no label
        numbers.append(number)
        paths.append(pair[0].rstrip())
        labels.append(known[label])
        if len(pair) < 2 or not known[label]:
            faults.append((number, f"expected `path label`, got {line!r}"))
    if faults:
        refuse_lines(file, faults)
    heads = _without_frames(file, paths)
    return numbers, heads or paths, labels, heads is not None


def _read_cells(file: Path, delimiter: str) -> _Lines:
    rows = [(number, [cell.strip() for cell in cells]) for number, cells in read_cells(file, delimiter)]
    columns = len(rows[0][1]) if rows else 2
    faults = [
        (number, f"expected `path label` or `path frames label`, got {delimiter.join(cells)!r}")
        for number, cells in rows
        if len(cells) != columns or columns not in (2, 3) or not all(cells)
    ]
    if not faults and columns == 3:
        faults = [(n, f"expected a number of frames, got {c[1]!r}") for n, c in rows if not c[1].isdecimal()]
    if faults:
        refuse_lines(file, faults)
    return [n for n, _ in rows], [c[0] for _, c in rows], [c[-1] for _, c in rows], columns == 3


def _refuse_several_labels(file: Path, numbers: Sequence[int], labels: Sequence[str]) -> None:
    """Refuses labels that a CSV file with a header would split; here each would silently become one class."""
    several = {label for label in set(labels) if split_labels(label) != (label,)}
    if not several:
        return
    first = {label: number for number, label in zip(reversed(numbers), reversed(labels), strict=True)}
    named = few([f"{label} (line {first[label]})" for label in sorted(several, key=first.__getitem__)])
    raise DataError(
        f"{file} has labels that look like several in one: {named}; if they are, write a CSV file whose first line is "
        f"`path,labels`; if each is the name of one class, list the classes in {file.with_name(CLASSES)}"
    )


def _without_frames(file: Path, paths: Sequence[str]) -> list[str] | None:
    """The paths without the numbers of frames after them; None if some lack one, or the disk says otherwise."""
    heads = []
    for path in paths:
        pair = path.rsplit("\t" if "\t" in path else None, 1)
        if len(pair) < 2 or not pair[1].isdecimal():
            return None
        heads.append(pair[0].rstrip())
    return None if any((file.parent / path).exists() for path in paths[:_PROBES]) else heads
