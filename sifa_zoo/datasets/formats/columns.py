"""CSV files with a header, read into columns that are looked up by name."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress, islice
from pathlib import Path

from sifa_zoo.datasets.formats.splits import rows_of_split
from sifa_zoo.datasets.formats.text import read_cells, read_first_line, refuse_lines, sniff_delimiter
from sifa_zoo.datasets.videos import DataError

SPLIT_COLUMNS = ("split", "subset")
_BLOCK = 10_000


@dataclass(frozen=True)
class Columns:
    """The cells of a CSV file by column, without white space around them; `header` is as written in the file."""

    file: Path
    header: tuple[str, ...]
    numbers: Sequence[int]
    cells: Sequence[Sequence[str]]

    def place(self, names: Iterable[str]) -> int | None:
        """The place of the column with the first of these names that is there, in upper or lower case."""
        lower = [name.lower() for name in self.header]
        return next((lower.index(name) for name in names if name in lower), None)

    def column(self, names: Sequence[str]) -> Sequence[str]:
        """The cells of the column with the first of these names that is there.

        Raises:
            DataError: If there is no such column; the message names the columns of the file.
        """
        place = self.place(names)
        if place is None:
            raise DataError(f"{self.file} has no column {' or '.join(names)}; its columns are {', '.join(self.header)}")
        return self.cells[place]

    def of_split(self, split: str | None) -> Columns:
        """The rows of a split, as a column `split` says; all rows where it is missing or says the same everywhere.

        Raises:
            DataError: If there are none, or there are several splits and none is named.
        """
        place = self.place(SPLIT_COLUMNS)
        if place is None:
            return self
        chosen = list(rows_of_split(self.cells[place], split, file=self.file))
        cells = [list(compress(column, chosen)) for column in self.cells]
        return Columns(self.file, self.header, list(compress(self.numbers, chosen)), cells)


def read_columns(file: Path) -> Columns:
    """Reads a CSV file; its first line shows the delimiter.

    Raises:
        DataError: If it has no rows, two columns of one name, or rows with more or fewer cells than the header.
    """
    rows = read_cells(file, sniff_delimiter(read_first_line(file)))
    _, first = next(rows, (0, []))
    header = tuple(cell.strip() for cell in first)
    lower = [name.lower() for name in header]
    if twice := sorted({name for name in lower if lower.count(name) > 1}):
        raise DataError(f"{file} has columns of the same name: {', '.join(name or 'without one' for name in twice)}")
    numbers = array("q")
    columns: list[list[str]] = [[] for _ in header]
    faults = []
    while block := list(islice(rows, _BLOCK)):
        faults += [(n, f"expected {len(header)} cells, got {len(row)}") for n, row in block if len(row) != len(header)]
        numbers.extend(number for number, _ in block)
        for column, cells in zip(columns, zip(*(row for _, row in block), strict=False), strict=False):
            column.extend(map(str.strip, cells))
    if faults:
        refuse_lines(file, faults)
    if not numbers:
        raise DataError(f"no rows in {file}; its columns are {', '.join(header)}")
    return Columns(file, header, numbers, columns)
