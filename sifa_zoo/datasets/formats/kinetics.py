"""Kinetics 400, 600 and 700: CSV files of label, youtube_id, time_start and time_end; videos named after them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sifa_zoo.datasets.formats.rows import Rows, Wish
from sifa_zoo.datasets.formats.splits import ANY, SPLITS, annotation_files, beside
from sifa_zoo.datasets.formats.text import read_columns, read_first_line, refuse_lines
from sifa_zoo.datasets.formats.video_files import videos_by_stem

_ID, _START, _END = ("youtube_id",), ("time_start",), ("time_end",)


class Kinetics:
    """The official CSV files, and videos `ID_000010_000020.mp4` or `ID.mp4`, with any suffix, at any depth beside them.

    Of several videos of one name, the one in a folder named after the split is taken, otherwise the first by path.
    """

    name = "kinetics"
    title = "Kinetics CSV"
    expected = "train.csv and val.csv with columns label, youtube_id, time_start, time_end, and videos below the folder"

    def find(self, data: Path) -> dict[str, Path]:
        """The CSV files, if they have the header of Kinetics."""
        files = {ANY: data} if data.is_file() else annotation_files(data, "*.csv")
        return files if all(map(_is_kinetics, files.values())) else {}

    def read(self, file: Path, wish: Wish) -> Rows:
        """Reads the file of a split, or the only one.

        Raises:
            DataError: If a column is missing, rows cannot be used, or videos are missing, as some usually are.
        """
        columns = read_columns(file).of_split(wish.split)
        ids, labels = columns.column(_ID), columns.column(("label",))
        names, faults = [], []
        for number, *cells in zip(columns.numbers, ids, columns.column(_START), columns.column(_END), strict=True):
            name = _file_name(*cells)
            names.append(name or "")
            if name is None:
                faults.append((number, f"expected an id and times in seconds, got {', '.join(cells)}"))
        faults += [(n, "the label is missing") for n, label in zip(columns.numbers, labels, strict=True) if not label]
        if faults:
            refuse_lines(file, sorted(faults))
        by_stem = videos_by_stem(beside(wish.data))
        paths = [_choose(by_stem, (name, id_), wish.split) for name, id_ in zip(names, ids, strict=True)]
        return Rows(file, columns.numbers, paths, labels, format=self.title, names=names)


def _is_kinetics(file: Path) -> bool:
    line = read_first_line(file).lower()
    return file.suffix.lower() == ".csv" and all(name in line for name in (*_ID, *_START, *_END))


def _file_name(id_: str, start: str, end: str) -> str | None:
    try:
        return f"{id_}_{int(float(start)):06d}_{int(float(end)):06d}" if id_ else None
    except (ValueError, OverflowError):
        return None


def _choose(by_stem: Mapping[str, Sequence[str]], stems: Sequence[str], split: str | None) -> str | None:
    paths = next((by_stem[stem] for stem in stems if stem in by_stem), None)
    if paths is None:
        return None
    own = (path for path in paths if split and not set(Path(path).parts).isdisjoint(SPLITS[split]))
    return paths[0] if len(paths) == 1 else next(own, paths[0])
