"""From the labels of a data set to their names, with its class list, and on to places among the classes of a model."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sifa_zoo.datasets.formats.text import read_cells, read_first_line, read_lines, refuse_lines, sniff_delimiter
from sifa_zoo.datasets.videos import DataError, few

BY_INDEX = "index"
_MOST_CLASSES = 100_000
# Labels that make more classes than this and use less than one part in ten of them do not count classes.
_MOST_SPARSE, _SPARSE = 1000, 10
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


def number_of(label: str) -> int | None:
    """The whole number that a label is, also as pandas writes it where a column has gaps (`3.0`); None for a name."""
    whole, _, fraction = label.partition(".")
    # Python refuses to convert thousands of digits; twenty are already beyond any class.
    return int(whole[:20]) if whole.isdecimal() and not fraction.strip("0") else None


def find_class_list(folder: Path) -> ClassList | None:
    """The class list in a folder: `classes.txt` (a name per line) or `classInd.txt` (number and name per line).

    Raises:
        DataError: If it cannot be used.
    """
    names = [spelt for name in _CLASS_LISTS for spelt in (name, name.replace(".txt", ".TXT"))]
    file = next((folder / name for name in names if (folder / name).is_file()), None)
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

    Numbers (see `number_of`) are looked up in the class list; without one the names are `0`, `1` and so on up to the
    highest number.
    Where labels `are_names`, as those of folders are, numbers are names like any other.
    """
    different = {label: composed(label) for label in dict.fromkeys(labels)}
    all_numbers = bool(different) and not are_names and all(number_of(label) is not None for label in different)
    if class_list is not None:
        return _by_class_list(different, class_list, all_numbers=all_numbers)
    if are_names:
        return Naming(different, {}, tuple(sorted(set(different.values()))))
    faults = {
        label: f"labels count from 0, got {label}"
        for label in different
        if label[:1] == "-" and number_of(label[1:]) is not None
    }
    if not all_numbers:
        return Naming(different, faults, tuple(sorted(set(different.values()))))
    numbers = {label: number for label in different if (number := number_of(label)) is not None}
    faults = {
        label: f"labels count from 0 without large gaps, got {label}"
        for label, number in numbers.items()
        if number >= _MOST_CLASSES
    }
    names = {label: str(number) for label, number in numbers.items() if label not in faults}  # 007 is 7
    highest = max((int(name) for name in names.values()), default=0)
    return Naming(names, faults, tuple(map(str, range(highest + 1))), by_number=True)


class UnknownLabels(DataError):
    """Labels whose classes the model lacks; `labels` maps each to the name of its class."""

    def __init__(self, labels: dict[str, str], text: str, places: Mapping[str, str] | None = None) -> None:
        found = {name: (places or {}).get(label) for label, name in labels.items()}
        named = [f"{name} ({place})" if place else name for name, place in sorted(found.items())]
        super().__init__(f"{text}: {few(named)}; leave them out, or map them to classes with --remap FILE")
        self.labels = labels
        self.text = text

    def located(self, places: Mapping[str, str]) -> UnknownLabels:
        """The same error, saying where each label comes first."""
        return UnknownLabels(self.labels, self.text, places)


def place_labels(
    naming: Naming, class_names: Sequence[str] | None, remap: str | None, *, source: Path | str
) -> tuple[dict[str, int], tuple[str, ...]]:
    """The place of each label, and the class names that it is a place in: `class_names`, or else the data set's own.

    Args:
        naming: The names of the labels.
        class_names: The classes that they must belong to, as when weights bring them.
        remap: None, `index`, or a file of `label of the data set,class of the weights`.
        source: The data set, for error messages.

    Raises:
        DataError: If classes are not among `class_names`, or `remap` does not fit.
    """
    names = naming.names
    own = naming.class_names
    if remap == BY_INDEX:
        names = _by_index(naming, class_names, source=source)
    elif remap is not None:
        table = read_remap(Path(remap), class_names)
        names = {label: table.get(composed(label), table.get(name, name)) for label, name in names.items()}
        own = tuple(sorted({table.get(name, name) for name in own}))
    elif class_names is None and naming.by_number:
        _refuse_gaps(naming, source=source)
    elif class_names is not None and naming.by_number and names.keys() <= set(class_names):
        names = {label: label for label in names}  # 1.0 is a name if the model says so
    elif class_names is not None and _only_numbered(naming, class_names):
        raise DataError(
            f"the labels of {source} are numbers ({few(sorted(set(names.values()), key=int))}), but the classes are "
            f"names ({few(class_names)}), so nothing says which is which: put the names into a classes.txt beside the "
            f"list; or give --remap {BY_INDEX} if the numbers count these classes from 0, or --remap FILE with lines "
            "`number,class`"
        )
    class_names = own if class_names is None else tuple(class_names)
    places = {composed(name): place for place, name in enumerate(class_names)}
    if unknown := {label: name for label, name in names.items() if name not in places}:
        raise UnknownLabels(unknown, f"{source} has classes that are not among the {_classes(class_names)}")
    return {label: places[name] for label, name in names.items()}, class_names


def read_remap(file: Path, class_names: Sequence[str] | None) -> dict[str, str]:
    """Reads lines `label of the data set,class of the weights` (with a comma, semicolon or tab), or a JSON object.

    Raises:
        DataError: If the file cannot be used, a label comes twice, or a class is unknown.
    """
    if file.suffix.lower() == ".json":
        try:
            pairs = json.loads(file.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {file} as JSON: {error}") from error
        if not isinstance(pairs, dict) or not all(isinstance(name, str) for name in pairs.values()):
            raise DataError(f"expected a JSON object of label and class in {file}, such as {{'jumping': 'jump'}}")
        rows = [(number, [label, name]) for number, (label, name) in enumerate(pairs.items(), 1)]
    else:
        rows = list(read_cells(file, sniff_delimiter(read_first_line(file))))
    known = None if class_names is None else {composed(name) for name in class_names}
    table: dict[str, str] = {}
    faults = []
    for number, cells in rows:
        label, name = (composed(cell.strip()) for cell in cells) if len(cells) == 2 else ("", "")
        if not label or not name:
            faults.append((number, f"expected `label,class`, got {','.join(cells)!r}"))
        elif label in table:
            faults.append((number, f"label {label} comes twice"))
        elif known is not None and name not in known:
            faults.append((number, f"{name} is not among the {_classes(class_names or ())}"))
        table[label] = name
    if faults:
        refuse_lines(file, faults)
    return table


def _by_class_list(different: dict[str, str], class_list: ClassList, *, all_numbers: bool) -> Naming:
    known = set(class_list.names)
    names = {label: name for label, name in different.items() if name in known}
    if all_numbers and len(names) < len(different):  # unless they are names that happen to be numbers
        numbers = {label: number_of(label) for label in different}
        names = {label: class_list.numbers[n] for label, n in numbers.items() if n in class_list.numbers}
    least, most = min(class_list.numbers), max(class_list.numbers)
    faults = {
        label: f"label {label} is not in {class_list.file}" + (f" ({least} to {most})" if all_numbers else "")
        for label in different
        if label not in names
    }
    return Naming(names, faults, class_list.names)


def _refuse_gaps(naming: Naming, *, source: Path | str) -> None:
    """Refuses numbers that would make many classes and leave most of them empty, as years do."""
    num_classes, used = len(naming.class_names), sorted(set(naming.names.values()), key=int)
    if num_classes > _MOST_SPARSE and len(used) * _SPARSE < num_classes:
        raise DataError(
            f"the labels of {source} are numbers ({few(used)}), which would make {num_classes:,} classes, only "
            f"{len(used)} of them with videos: list the names of the classes in a classes.txt beside it, one per line, "
            "even if these numbers are the names"
        )


def _only_numbered(naming: Naming, class_names: Sequence[str]) -> bool:
    """Whether the data set has nothing but numbers where the classes have names."""
    numbers = set(naming.names.values())
    return naming.by_number and not numbers <= set(class_names) and not all(n.isdecimal() for n in class_names)


def _classes(names: Sequence[str]) -> str:
    return f"{len(names)} classes ({few(names)})"


def _by_index(naming: Naming, class_names: Sequence[str] | None, *, source: Path | str) -> dict[str, str]:
    if class_names is None:
        raise DataError(f"--remap {BY_INDEX} needs weights with class names, which the numbers count")
    numbers = {label: number_of(label) for label in naming.names}
    if words := [label for label, number in numbers.items() if number is None]:
        raise DataError(f"--remap {BY_INDEX} needs numbers as labels, but {source} has {few(sorted(words))}")
    places = {label: number for label, number in numbers.items() if number is not None}
    if high := [label for label, place in places.items() if place >= len(class_names)]:
        named = few(sorted(high, key=places.__getitem__))
        raise DataError(f"{source} has labels beyond the {_classes(class_names)}: {named}; places count from 0")
    return {label: composed(class_names[place]) for label, place in places.items()}
