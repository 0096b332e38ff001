"""The names that a data set's labels stand for, and the class lists that lie beside it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sifa_zoo.datasets.formats.text import read_lines, refuse_lines

_MOST_CLASSES = 100_000
_CLASS_LISTS = ("classes.txt", "classInd.txt")


@dataclass(frozen=True)
class ClassList:
    """The classes of a data set in order, and the class that each number stands for where labels are numbers."""

    file: Path | str
    names: tuple[str, ...]
    numbers: dict[int, str]


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC), the form in which names are compared."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def find_class_list(folder: Path) -> ClassList | None:
    """The class list in a folder: `classes.txt` (a name per line) or `classInd.txt` (number and name per line).

    Raises:
        DataError: If it cannot be used.
    """
    file = next((folder / name for name in _CLASS_LISTS if (folder / name).is_file()), None)
    return read_class_list(file) if file else None


def read_class_list(file: Path) -> ClassList:
    """Reads a class list: a name per line, numbered from 0 in their order; in `classInd.txt` number and name.

    Raises:
        DataError: If a line cannot be used or a class comes twice.
    """
    return parse_class_list(read_lines(file), file=file, numbered=file.name.lower() == "classind.txt")


def parse_class_list(lines: Iterable[tuple[int, str]], *, file: Path | str, numbered: bool = False) -> ClassList:
    """A class list from its numbered lines; otherwise as `read_class_list`."""
    numbers: dict[int, str] = {}
    faults = []
    for line_number, line in lines:
        number, _, name = line.partition(" ") if numbered else (str(len(numbers)), "", line)
        name = composed(name.strip())
        if not number.isdecimal() or not name:
            faults.append((line_number, f"expected `number name`, got {line!r}"))
        elif int(number) in numbers or name in numbers.values():
            faults.append((line_number, f"{line} comes twice"))
        else:
            numbers[int(number)] = name
    if not numbers and not faults:
        faults.append((1, "expected the names of the classes, one per line, got an empty file"))
    if faults:
        refuse_lines(file, faults)
    return ClassList(file, tuple(numbers[number] for number in sorted(numbers)), numbers)


@dataclass(frozen=True)
class Naming:
    """The names of labels: that of each label that has one, what is wrong with the others, and all names in order.

    `by_number` says that the data set has nothing but numbers, so that these are the names.
    """

    names: dict[str, str]
    faults: dict[str, str]
    class_names: tuple[str, ...]
    by_number: bool = False


def name_labels(labels: Iterable[str], class_list: ClassList | None, *, are_names: bool = False) -> Naming:
    """Finds the name of each label of a data set.

    Numbers are looked up in the class list; without one the names are `0`, `1` and so on up to the highest number.
    Where labels `are_names`, as those of folders are, numbers are names like any other.
    """
    different = {label: composed(label) for label in dict.fromkeys(labels)}
    all_numbers = bool(different) and not are_names and all(label.isdecimal() for label in different)
    if class_list is not None:
        return _by_class_list(different, class_list, all_numbers=all_numbers)
    if are_names:
        return Naming(different, {}, tuple(sorted(set(different.values()))))
    faults = {
        label: f"labels count from 0, got {label}" for label in different if label[:1] == "-" and label[1:].isdecimal()
    }
    if not all_numbers:
        return Naming(different, faults, tuple(sorted(set(different.values()))))
    faults = {
        label: f"labels count from 0 without large gaps, got {label}"
        for label in different
        if len(label) > 9 or int(label) >= _MOST_CLASSES
    }
    names = {label: str(int(label)) for label in different if label not in faults}  # 007 is 7
    highest = max((int(name) for name in names.values()), default=0)
    return Naming(names, faults, tuple(map(str, range(highest + 1))), by_number=True)


def _by_class_list(different: dict[str, str], class_list: ClassList, *, all_numbers: bool) -> Naming:
    known = set(class_list.names)
    names = {label: name for label, name in different.items() if name in known}
    if all_numbers and len(names) < len(different):  # unless they are names that happen to be numbers
        names = {label: class_list.numbers[int(label)] for label in different if int(label) in class_list.numbers}
    least, most = min(class_list.numbers), max(class_list.numbers)
    faults = {
        label: f"label {label} is not in {class_list.file}" + (f" ({least} to {most})" if all_numbers else "")
        for label in different
        if label not in names
    }
    return Naming(names, faults, class_list.names)
