"""List files: a line `path label` per video, or `path frames label` as the published SIFA code has them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

from sifa_zoo.data.formats.files import VIDEO_SUFFIXES
from sifa_zoo.data.formats.labels import find_class_list
from sifa_zoo.data.formats.rows import Rows, Wish, make_videos
from sifa_zoo.data.formats.splits import LIST_SUFFIXES, list_files, pick_split
from sifa_zoo.data.formats.table import has_header
from sifa_zoo.data.formats.text import read_cells, read_first_line, read_lines, sniff_delimiter
from sifa_zoo.data.pictures import PICTURE_SUFFIXES
from sifa_zoo.data.videos import VideoList

_ENDINGS = (*VIDEO_SUFFIXES, *PICTURE_SUFFIXES)
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
        files = [data] if data.is_file() else list(list_files(data).values())
        return bool(files) and all(file.suffix.lower() in LIST_SUFFIXES and not has_header(file) for file in files)

    def read(self, data: Path, wish: Wish) -> VideoList:
        """Reads the list of a split, or the list itself.

        Raises:
            DataError: If a line has no label or one that is unknown, a video does not exist, or there are no lines.
        """
        file = pick_split(data, list_files(data), wish.split) if data.is_dir() else data
        delimiter = sniff_delimiter(read_first_line(file)) if file.suffix.lower() in (".csv", ".tsv") else None
        rows, with_frames = _read_cells(file, delimiter) if delimiter in (",", ";") else _read_lines(file)
        rows.class_list = find_class_list(file.parent)
        line = "path frames label" if with_frames else "path label"
        return make_videos(rows, wish, format=f"list of `{line}` lines")


def _read_lines(file: Path) -> tuple[Rows, bool]:
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
        return Rows(file, numbers, (), (), faults=faults), False
    heads = _without_frames(file, paths)
    return Rows(file, numbers, heads or paths, labels), heads is not None


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


def _without_frames(file: Path, paths: Sequence[str]) -> list[str] | None:
    """The paths before the numbers of frames; None where they do not all have one, or the disk says otherwise."""
    heads = []
    for path in paths:
        pair = path.rsplit("\t" if "\t" in path else None, 1)
        if len(pair) < 2 or not pair[1].isdecimal():
            return None
        heads.append(pair[0].rstrip())
    return None if any((file.parent / path).exists() for path in paths[:_PROBES]) else heads
