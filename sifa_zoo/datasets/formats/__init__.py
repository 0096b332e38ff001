"""Data sets as people have them: a module per format, each from a path to rows of video and label."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from sifa_zoo.datasets.formats.folders import ClassFolders
from sifa_zoo.datasets.formats.hmdb51 import Hmdb51
from sifa_zoo.datasets.formats.kinetics import Kinetics
from sifa_zoo.datasets.formats.lists import ListFile
from sifa_zoo.datasets.formats.rows import Rows, Wish
from sifa_zoo.datasets.formats.something import SomethingV1, SomethingV2
from sifa_zoo.datasets.formats.table import Table
from sifa_zoo.datasets.formats.ucf101 import Ucf101


class Format(Protocol):
    """A way of laying out a data set on disk."""

    name: str  # for --format
    title: str  # for messages
    expected: str  # the files that belong to it, in words

    def find(self, data: Path) -> dict[str, Path]:
        """What to read for each split, or the only thing there under `ANY`, judged by names and first lines alone.

        Empty if the data has another format.
        """

    def read(self, file: Path, wish: Wish) -> Rows:
        """Reads one of these.

        Raises:
            DataError: If it cannot be used.
        """


FOLDERS = ClassFolders()
LISTS: tuple[Format, ...] = (ListFile(), Table())
KNOWN_SETS: tuple[Format, ...] = (Kinetics(), SomethingV1(), SomethingV2(), Ucf101(), Hmdb51())
FORMATS: dict[str, Format] = {format.name: format for format in (FOLDERS, *LISTS, *KNOWN_SETS)}
