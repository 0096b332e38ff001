"""Text files: lines, cells, columns that are looked up by name; and errors that name the lines that are wrong."""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, compress, islice
from pathlib import Path
from typing import NoReturn, TextIO

from sifa_zoo.datasets.formats.splits import rows_of_split
from sifa_zoo.datasets.videos import DataError

SPLIT_COLUMNS = ("split", "subset")
_BLOCK = 10_000
_MOST_LINES = 20
_DELIMITERS = ",;\t"


@contextmanager
def open_text(file: Path, *, newline: str | None = None) -> Iterator[TextIO]:
    """Opens a file in UTF-8, with or without a byte order mark.

    Raises:
        DataError: If it cannot be read, or has another encoding.
    """
    try:
        with open(file, encoding="utf-8-sig", newline=newline) as opened:
            yield opened
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not a text file in UTF-8; save it as one") from error
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error


def read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of each line that is not empty, without white space around it."""
    with open_text(file) as opened:
        for number, line in enumerate(opened, 1):
            if stripped := line.strip():
                yield number, stripped


def read_first_line(file: Path) -> str:
    """The first line that is not empty, within the first 64 kB; empty if there is none."""
    try:
        with open(file, "rb") as opened:
            text = opened.read(65536).decode("utf-8-sig", errors="ignore")
    except OSError:
        return ""
    return next((line for line in text.splitlines() if line.strip() and not _names_delimiter(line)), "")


def sniff_delimiter(line: str) -> str | None:
    """The most frequent of comma, semicolon and tab outside quotes; None if the line has none of them."""
    bare = "".join(line.split('"')[::2])
    counts = {delimiter: bare.count(delimiter) for delimiter in _DELIMITERS}
    best = max(_DELIMITERS, key=lambda delimiter: counts[delimiter])
    return best if counts[best] else None


def split_cells(line: str, delimiter: str | None) -> list[str]:
    """The cells of one line of a CSV file."""
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter or ","), [])]


def read_cells(file: Path, delimiter: str | None) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row of a CSV file that is not empty.

    Raises:
        DataError: If the file cannot be read, or the csv module gives up on a line.
    """
    with open_text(file, newline="") as opened:
        first = opened.readline()
        lines = chain(["\n" if _names_delimiter(first) else first], opened)
        reader = csv.reader(lines, delimiter=delimiter or ",")
        try:
            for cells in reader:
                if len(cells) > 1 or (cells and cells[0].strip()):
                    yield reader.line_num, cells
        except csv.Error as error:
            raise DataError(f"{file}, line {reader.line_num}: {error}") from error


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


def refuse_lines(file: Path | str, faults: Sequence[tuple[int, str]], *, unit: str = "line") -> NoReturn:
    """Refuses a file and names its faulty lines, the first twenty of them; by number, unless `unit` is empty.

    Raises:
        DataError: Always.
    """
    if len(faults) == 1:
        number, fault = faults[0]
        raise DataError(f"{file}, {unit} {number}: {fault}" if unit else f"{file}: {fault}")
    lines = [f"{unit} {number}: {fault}" if unit else fault for number, fault in faults[:_MOST_LINES]]
    if len(faults) > _MOST_LINES:
        lines.append(f"and {len(faults) - _MOST_LINES} more")
    what = f"faulty {unit}s" if unit else "faults"
    raise DataError("\n  ".join([f"{file} has {len(faults)} {what}:", *lines]))


def _names_delimiter(line: str) -> bool:
    """Whether this is a line such as `sep=;`, which Excel writes first and which tells no more than the next line."""
    return line.rstrip("\r\n") in [f"sep={delimiter}" for delimiter in _DELIMITERS]
