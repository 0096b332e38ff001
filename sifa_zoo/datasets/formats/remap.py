"""From the names of a data set's classes to their places in the classes of a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from sifa_zoo.datasets.formats.labels import Naming, composed
from sifa_zoo.datasets.formats.text import read_cells, read_first_line, refuse_lines, sniff_delimiter
from sifa_zoo.datasets.videos import DataError, few

BY_INDEX = "index"


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


def _only_numbered(naming: Naming, class_names: Sequence[str]) -> bool:
    """Whether the data set has nothing but numbers where the classes have names."""
    numbers = set(naming.names.values())
    return naming.by_number and not numbers <= set(class_names) and not all(n.isdecimal() for n in class_names)


def _classes(names: Sequence[str]) -> str:
    return f"{len(names)} classes ({few(names)})"


def _by_index(naming: Naming, class_names: Sequence[str] | None, *, source: Path | str) -> dict[str, str]:
    if class_names is None:
        raise DataError(f"--remap {BY_INDEX} needs weights with class names, which the numbers count")
    if words := [label for label in naming.names if not label.isdecimal()]:
        raise DataError(f"--remap {BY_INDEX} needs numbers as labels, but {source} has {few(sorted(words))}")
    if high := [label for label in naming.names if int(label) >= len(class_names)]:
        raise DataError(
            f"{source} has labels beyond the {_classes(class_names)}: {few(sorted(high, key=int))}; places count from 0"
        )
    return {label: composed(class_names[int(label)]) for label in naming.names}
