"""List files: a line `path label` per video, or `path frames label` as the published SIFA code has them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from sifa_zoo.data.formats.files import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from sifa_zoo.data.formats.labels import find_class_list
from sifa_zoo.data.formats.rows import Rows, Wish, make_videos
from sifa_zoo.data.formats.splits import pick_split, split_files
from sifa_zoo.data.formats.table import has_header
from sifa_zoo.data.formats.text import read_cells, read_first_line, read_lines, sniff_delimiter
from sifa_zoo.data.videos import VideoList

_SUFFIXES = (".txt", ".csv", ".tsv", ".lst")
_PROBES = 1000


class ListFile:
    """Lines of path and label, separated by the last white space or tab; in .csv files by a comma, if there is any.

    Paths are relative to the list and may hold spaces; labels that hold some come after a tab. Where the field before
    the label is a whole number in every line, it is the number of frames, which is passed over: videos are believed,
    not lists. Unless the disk says that it belongs to the path.
    """

    name = "list"
    title = "list of videos"
    expected = "a text file of `path label` or `path frames label` lines, or train.txt and val.txt"

    def recognise(self, data: Path) -> bool:
        """Whether there are lists, by suffix; a CSV file with a header is none."""
        files = [data] if data.is_file() else list(_lists_in(data).values())
        return bool(files) and all(file.suffix.lower() in _SUFFIXES and not has_header(file) for file in files)

    def read(self, data: Path, wish: Wish) -> VideoList:
        """Reads the list of a split, or the list itself.

        Raises:
            DataError: If a line has no label or one that is unknown, a video does not exist, or there are no lines.
        """
        file = pick_split(data, _lists_in(data), wish.split) if data.is_dir() else data
        delimiter = sniff_delimiter(read_first_line(file)) if file.suffix.lower() in (".csv", ".tsv") else None
        rows, with_frames = _read_cells(file, delimiter) if delimiter in (",", ";") else _read_lines(file)
        rows.class_list = find_class_list(file.parent)
        line = "path frames label" if with_frames else "path label"
        return make_videos(rows, wish, format=f"list of `{line}` lines")


def _lists_in(folder: Path) -> dict[str, Path]:
    """Lists by split. Among several of a split the first by suffix is taken, so .txt before .csv."""
    found: dict[str, Path] = {}
    for suffix in _SUFFIXES:
        found = {**split_files(folder, f"*{suffix}"), **found}
    return found


def _read_lines(file: Path) -> tuple[Rows, bool]:
    numbers, lines = read_lines(file)
    separators = ["\t" if "\t" in line else None for line in lines]
    pairs = [line.rsplit(separator, 1) for line, separator in zip(lines, separators, strict=True)]
    faults = [
        (number, f"expected `path label`, got {line!r}")
        for number, line, pair in zip(numbers, lines, pairs, strict=True)
        if len(pair) < 2 or _is_bare_path(line, pair)
    ]
    if faults:
        return Rows(file, numbers, (), (), faults=faults), False
    paths = [pair[0].rstrip() for pair in pairs]
    heads = _without_frames(file, [path.rsplit(s, 1) for path, s in zip(islice(paths, 1), separators, strict=False)])
    if heads is not None:
        heads = _without_frames(file, [path.rsplit(s, 1) for path, s in zip(paths, separators, strict=True)])
    return Rows(file, numbers, heads or paths, [pair[1].lstrip() for pair in pairs]), heads is not None


def _read_cells(file: Path, delimiter: str | None) -> tuple[Rows, bool]:
    rows = [(number, [cell.strip() for cell in cells]) for number, cells in read_cells(file, delimiter)]
    columns = len(rows[0][1]) if rows else 2
    faults = [
        (number, f"expected `path label` or `path frames label`, got {(delimiter or ',').join(cells)!r}")
        for number, cells in rows
        if len(cells) != columns or columns not in (2, 3) or not all(cells)
    ]
    numbers = [number for number, _ in rows]
    if faults:
        return Rows(file, numbers, (), (), faults=faults), False
    if columns == 3 and not all(cells[1].isdecimal() for _, cells in rows):
        faults = [(n, f"expected a number of frames, got {c[1]!r}") for n, c in rows if not c[1].isdecimal()]
    return Rows(file, numbers, [c[0] for _, c in rows], [c[-1] for _, c in rows], faults=faults), columns == 3


def _without_frames(file: Path, fields: Sequence[list[str]]) -> list[str] | None:
    """The paths before the numbers of frames; None where the fields are not all such, or the disk says otherwise."""
    if not all(len(pair) == 2 and pair[1].isdecimal() for pair in fields):
        return None
    heads = [pair[0].rstrip() for pair in fields]
    whole = (file.parent / f"{head} {number}" for head, (_, number) in islice(zip(heads, fields, strict=True), _PROBES))
    return None if any(map(os.path.exists, whole)) else heads


def _is_bare_path(line: str, pair: list[str]) -> bool:
    """A path with spaces whose label is missing: the supposed label ends as a file does."""
    return pair[1].lower().endswith((*VIDEO_SUFFIXES, *PICTURE_SUFFIXES))
