"""Something-Something: V1 as folders of pictures and CSV files, V2 as WebM files and JSON files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sifa_zoo.datasets.formats.labels import ClassList, composed, read_class_list
from sifa_zoo.datasets.formats.rows import Rows, Wish
from sifa_zoo.datasets.formats.splits import ANY, annotation_files, beside
from sifa_zoo.datasets.formats.text import open_text, read_cells, read_first_line, refuse_lines
from sifa_zoo.datasets.formats.video_files import videos_by_stem
from sifa_zoo.datasets.videos import DataError, few


class SomethingV1:
    """CSV files `*-v1-train.csv` and `*-v1-validation.csv` (`id;label`), and folders of pictures named by id.

    Files whose names begin otherwise than the official ones must have `id;label`, with a number as id, in their first
    line. Classes are in the order of `*-v1-labels.csv`, or sorted where there is no such file.
    """

    name = "something-v1"
    title = "Something-Something V1"
    expected = "something-something-v1-train.csv, -validation.csv and -labels.csv, and folders ID/00001.jpg"

    def find(self, data: Path) -> dict[str, Path]:
        """The CSV files of these names, in the folder or one below."""
        if data.is_file():
            return {ANY: data} if data.suffix.lower() == ".csv" and "-v1-" in data.name and _is_v1(data) else {}
        files = annotation_files(data, "*-v1-*.csv")
        return files if any(map(_is_v1, files.values())) else {}

    def read(self, file: Path, wish: Wish) -> Rows:
        """Reads the file of a split, or the only one.

        Raises:
            DataError: If lines cannot be used, a label is unknown, or videos are missing.
        """
        lines = [(number, [cell.strip() for cell in cells]) for number, cells in read_cells(file, ";")]
        faults = [
            (number, f"expected `id;label`, got {';'.join(cells)!r}{_TEST_HINT if len(cells) == 1 else ''}")
            for number, cells in lines
            if len(cells) != 2 or not all(cells)
        ]
        if faults:
            refuse_lines(file, faults)
        numbers = [number for number, _ in lines]
        ids, labels = ([cells[column] for _, cells in lines] for column in (0, 1))
        listed = next(iter(sorted(file.parent.glob("*-v1-labels.csv"))), None)
        class_list = read_class_list(listed) if listed else None
        paths = _find(wish.data, ids)
        return Rows(file, numbers, paths, labels, format=self.title, names=ids, class_list=class_list)


class SomethingV2:
    """JSON files `*train.json` and `*validation.json`, and videos `ID.webm` (or with another suffix).

    The class of a video is its template without the brackets around [something]. Classes are in the order of the
    numbers in `*labels.json`, or sorted where there is no such file.
    """

    name = "something-v2"
    title = "Something-Something V2"
    expected = "something-something-v2-train.json, -validation.json and -labels.json, and videos ID.webm"

    def find(self, data: Path) -> dict[str, Path]:
        """The JSON files of these names, in the folder or one below."""
        if data.is_file():
            return {ANY: data} if data.suffix.lower() == ".json" else {}
        files = annotation_files(data, "*.json")
        return files if any(map(_has_templates, files.values())) else {}

    def read(self, file: Path, wish: Wish) -> Rows:
        """Reads the file of a split, or the only one.

        Raises:
            DataError: If entries cannot be used, a template is unknown, or videos are missing.
        """
        entries = _read_json(file, list)
        faults = [
            (number, f"expected id and template, got {json.dumps(entry)[:80]}{_test_hint(entry)}")
            for number, entry in enumerate(entries, 1)
            if not isinstance(entry, dict) or not entry.get("id") or not isinstance(entry.get("template"), str)
        ]
        if faults:
            refuse_lines(file, faults, unit="entry")
        labels = [entry["template"].replace("[", "").replace("]", "").strip() for entry in entries]
        ids = [str(entry["id"]) for entry in entries]
        numbers, class_list = range(1, len(ids) + 1), _labels_json(file.parent)
        paths = _find(wish.data, ids)
        return Rows(file, numbers, paths, labels, format=self.title, names=ids, class_list=class_list, unit="entry")


_TEST_HINT = " (the test split has no labels)"


def _test_hint(entry: Any) -> str:
    return _TEST_HINT if isinstance(entry, dict) and "template" not in entry else ""


def _is_v1(file: Path) -> bool:
    number, semicolon, _ = read_first_line(file).partition(";")
    return file.name.startswith("something-something-v1-") or (bool(semicolon) and number.strip(' "').isdecimal())


def _has_templates(file: Path) -> bool:
    with open(file, "rb") as opened:
        return b'"template"' in opened.read(65536)


def _find(data: Path, ids: Sequence[str]) -> list[str | None]:
    """The video of each id; None where there is none."""
    by_stem: Mapping[str, Sequence[str | None]] = videos_by_stem(beside(data))
    return [by_stem.get(composed(id_), [None])[0] for id_ in ids]


def _labels_json(folder: Path) -> ClassList | None:
    file = next(iter(sorted(folder.glob("*labels.json"))), None)
    if file is None:
        return None
    numbers: Mapping[str, Any] = _read_json(file, dict)
    if wrong := [name for name, number in numbers.items() if not str(number).isdecimal()]:
        raise DataError(f"{file} has classes without a number: {few(wrong)}")
    order = {int(number): composed(name) for name, number in numbers.items()}
    if len(order) < len(numbers):
        raise DataError(f"{file} gives one number to two classes")
    return ClassList(file, tuple(order[number] for number in sorted(order)), order)


def _read_json(file: Path, kind: type) -> Any:
    with open_text(file) as opened:
        try:
            content = json.load(opened)
        except json.JSONDecodeError as error:
            raise DataError(f"cannot read {file} as JSON: {error}") from error
    if not isinstance(content, kind):
        raise DataError(f"expected a JSON {'list' if kind is list else 'object'} in {file}")
    return content
