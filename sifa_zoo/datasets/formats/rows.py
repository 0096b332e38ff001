"""From rows of path and label, which every format comes down to, to a list of videos that exist."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from sifa_zoo.config import ReadConfig
from sifa_zoo.datasets.formats.labels import ClassList, UnknownLabels, name_labels, place_labels
from sifa_zoo.datasets.formats.text import refuse_lines
from sifa_zoo.datasets.formats.video_files import existing_videos, hints_for_missing, real_paths
from sifa_zoo.datasets.videos import DataError, VideoList, few


@dataclass(frozen=True)
class Wish:
    """The arguments of `read_videos` that a format needs; see there."""

    data: Path
    split: str | None
    class_names: tuple[str, ...] | None
    how: ReadConfig


@dataclass(frozen=True)
class Rows:
    """The rows of a data set, as columns of equal length.

    Args:
        file: The file that holds them.
        numbers: Line numbers, or whatever `unit` says is numbered.
        paths: Videos, absolute or relative to the folder of `file`; None where a search did not find the video.
        labels: A label per row, or a tuple of them where videos may have several or none.
        format: What the rows were read from, in words.
        names: What the data set calls the videos, for error messages, where a search found their paths, which then
            exist. None: the paths are what it calls them, and may not exist.
        class_list: The classes of the data set, where it has a list of them.
        are_names: Labels are names even if all of them are numbers, as the names of folders may be.
        unit: What `numbers` count; empty for rows that come from no file.
    """

    file: Path
    numbers: Sequence[int]
    paths: Sequence[str | None]
    labels: Sequence[str] | Sequence[tuple[str, ...]]
    format: str
    names: Sequence[str] | None = None
    class_list: ClassList | None = None
    are_names: bool = False
    unit: str = "line"

    @property
    def multi_label(self) -> bool:
        """Whether each row has a tuple of labels."""
        return bool(self.labels) and isinstance(self.labels[0], tuple)


def make_videos(rows: Rows, wish: Wish) -> VideoList:
    """Turns labels into places among the classes, and finds the videos.

    Raises:
        DataError: If there are no rows, labels are unknown, videos are missing, or one video has two labels.
    """
    if not rows.paths:
        raise DataError(f"no videos in the list {rows.file}; expected lines of path and label")
    labels, class_names = _number_labels(rows, wish)
    found = existing_videos(_absolute(rows)) if rows.names is None else rows.paths
    exists = [path is not None for path in found]
    missing = _report_missing(rows, exists, wish) if not all(exists) else []
    paths = [path for path in found if path is not None]
    labels = labels[exists] if missing else labels
    real = real_paths(paths)
    if len(set(real)) < len(real):
        _check_repeated(rows.file, real, labels)
    return VideoList(paths, labels, class_names, format=rows.format, missing=missing)


def _number_labels(rows: Rows, wish: Wish) -> tuple[np.ndarray, tuple[str, ...]]:
    """Places `(N,)`, or booleans `(N, num_classes)` for rows with several labels each; and the class names."""
    flat: Iterable[str] = chain.from_iterable(rows.labels) if rows.multi_label else rows.labels  # type: ignore[assignment]
    naming = name_labels(flat, rows.class_list, are_names=rows.are_names)
    if naming.faults:
        wrong = _lines_with(rows, naming.faults)
        refuse_lines(rows.file, [(number, naming.faults[label]) for number, label in wrong], unit=rows.unit)
    try:
        places, class_names = place_labels(naming, wish.class_names, wish.how.remap, source=rows.file)
    except UnknownLabels as error:
        first = dict(reversed([(label, number) for number, label in _lines_with(rows, error.labels)]))
        raise error.located({label: f"{rows.unit} {number}" for label, number in first.items() if rows.unit}) from None
    if not rows.multi_label:
        numbers = np.fromiter(map(places.__getitem__, rows.labels), np.int64, len(rows.labels))  # type: ignore[arg-type]
        return numbers, class_names
    table = np.zeros((len(rows.labels), len(class_names)), bool)
    for row, labels in enumerate(rows.labels):
        table[row, [places[label] for label in labels]] = True
    return table, class_names


def _lines_with(rows: Rows, labels: Iterable[str]) -> list[tuple[int, str]]:
    """Number and label of each row that has one of these labels."""
    wanted = set(labels)
    cells = rows.labels if rows.multi_label else ((label,) for label in rows.labels)
    pairs = zip(rows.numbers, cells, strict=True)
    return [(number, label) for number, cell in pairs for label in cell if label in wanted]  # type: ignore[union-attr]


def _absolute(rows: Rows) -> list[str]:
    """Absolute paths. Links are resolved only where `..` follows, because it may lead out of one."""
    folder = os.path.abspath(rows.file.parent).rstrip("/") + "/"
    paths = [path if path.startswith("/") else folder + path for path in rows.paths if path is not None]
    paths = [os.fspath(Path(path)) if "/./" in path or "//" in path else path for path in paths]
    if not any("/../" in path for path in paths):
        return paths
    upwards = [place for place, path in enumerate(paths) if "/../" in path]
    for place, path in zip(upwards, real_paths([paths[place] for place in upwards]), strict=True):
        paths[place] = path
    return paths


def _report_missing(rows: Rows, exists: Sequence[bool], wish: Wish) -> list[str]:
    """Names the missing videos in an error, or in a warning if the caller allows them; returns their names."""
    names = rows.names if rows.names is not None else rows.paths
    missing = [place for place, is_there in enumerate(exists) if not is_there]
    some = few([f"{rows.unit} {rows.numbers[place]}: {names[place]}" for place in missing])
    hints = hints_for_missing([str(names[place]) for place in missing], rows.file.parent)
    text = "; ".join([f"{len(missing)} of {len(exists)} videos in {rows.file} do not exist: {some}", *hints])
    if not wish.how.allow_missing or len(missing) == len(exists):
        raise DataError(text + ("" if wish.how.allow_missing else "; --allow-missing leaves them out"))
    print(f"warning: {text}; they are left out", file=sys.stderr)
    return [str(names[place]) for place in missing]


def _check_repeated(file: Path, paths: Sequence[str], labels: np.ndarray) -> None:
    """Refuses a video that comes twice with different labels; warns of one that comes twice with the same."""
    first: dict[str, int] = {}
    repeated: list[str] = []
    contradictory: list[str] = []
    for place, path in enumerate(paths):
        before = first.setdefault(path, place)
        if before != place:
            (repeated if np.array_equal(labels[before], labels[place]) else contradictory).append(path)
    if contradictory:
        raise DataError(
            f"{len(contradictory)} videos in {file} come twice, with different labels: {few(contradictory)}"
        )
    print(f"warning: {len(repeated)} rows of {file} repeat a video, such as {repeated[0]}", file=sys.stderr)
