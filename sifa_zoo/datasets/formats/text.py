"""Text files with one entry per line, and errors that name the lines that are wrong."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import NoReturn, TextIO

from sifa_zoo.datasets.videos import DataError

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


def _names_delimiter(line: str) -> bool:
    """Whether this is a line such as `sep=;`, which Excel writes first and which tells no more than the next line."""
    return line.rstrip("\r\n") in [f"sep={delimiter}" for delimiter in _DELIMITERS]


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
