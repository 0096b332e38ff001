"""CSV files with a header, read into columns that are found by their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

from sifa_zoo.data.formats.splits import rows_of_split
from sifa_zoo.data.formats.text import read_cells, read_first_line, refuse_lines, sniff_delimiter
from sifa_zoo.data.videos import DataError

_SPLIT = ("split", "subset")


@dataclass(frozen=True)
class Columns:
    """The rows of a CSV file; `header` is as written."""

    file: Path
    header: tuple[str, ...]
    numbers: Sequence[int]
    rows: Sequence[Sequence[str]]

    def place(self, names: Iterable[str]) -> int | None:
        """Where the column is that has the first of these names which is there; upper and lower case are the same."""
        lower = [name.lower() for name in self.header]
        return next((lower.index(name) for name in names if name in lower), None)

    def column(self, names: Sequence[str]) -> list[str]:
        """The cells of a column, without white space around them.

        Raises:
            DataError: If there is no such column; those that are there are named.
        """
        place = self.place(names)
        if place is None:
            raise DataError(f"{self.file} has no column {' or '.join(names)}; its columns are {', '.join(self.header)}")
        return [row[place].strip() for row in self.rows]

    def of_split(self, split: str | None) -> Columns:
        """The rows that a column `split` gives to a split; all, where it is missing or says the same everywhere.

        Raises:
            DataError: If there are none.
        """
        place = self.place(_SPLIT)
        if place is None:
            return self
        chosen = list(rows_of_split([row[place] for row in self.rows], split))
        rows = list(compress(self.rows, chosen))
        return Columns(self.file, self.header, list(compress(self.numbers, chosen)), rows)


def read_columns(file: Path) -> Columns:
    """Reads a CSV file, whose delimiter is found from its first line.

    Raises:
        DataError: If it has no rows, two columns of one name, or rows with other than as many cells as the header.
    """
    cells = read_cells(file, sniff_delimiter(read_first_line(file)))
    _, first = next(cells, (0, []))
    header = tuple(cell.strip() for cell in first)
    lower = [name.lower() for name in header]
    if twice := sorted({name for name in lower if lower.count(name) > 1}):
        raise DataError(f"{file} has columns of the same name: {', '.join(twice) or 'without one'}")
    rows = list(cells)
    if not rows:
        raise DataError(f"no rows in {file}; its columns are {', '.join(header)}")
    faults = [(n, f"expected {len(header)} cells, got {len(row)}") for n, row in rows if len(row) != len(header)]
    if faults:
        refuse_lines(file, faults)
    return Columns(file, header, [number for number, _ in rows], [row for _, row in rows])
