"""HMDB51: a file `CLASS_test_split1.txt` per class and fold; videos `CLASS/NAME.avi`."""

from __future__ import annotations

from pathlib import Path

from sifa_zoo.datasets.formats.rows import Rows, Wish
from sifa_zoo.datasets.formats.splits import ANY
from sifa_zoo.datasets.formats.text import read_lines, refuse_lines
from sifa_zoo.datasets.formats.video_files import find_in_class, videos_by_stem
from sifa_zoo.datasets.videos import DataError

_USE = {"train": "1", "val": "2", "test": "2"}  # 0: in neither
_USES = ("0", "1", "2")


class Hmdb51:
    """The three official folds: a file per class with lines `NAME.avi 0`, `1` (training) or `2` (test)."""

    name = "hmdb51"
    title = "HMDB51"
    expected = "CLASS_test_split1.txt files, and videos CLASS/NAME.avi"

    def find(self, data: Path) -> dict[str, Path]:
        """The folder, if there are such files in it or one below."""
        return {ANY: data} if data.is_dir() and any(_files(data, fold) for fold in (1, 2, 3)) else {}

    def read(self, data: Path, wish: Wish) -> Rows:
        """Reads a split of the fold; `val` and `test` are the test videos.

        Raises:
            DataError: If the fold is not there, lines cannot be used, or videos are missing.
        """
        if wish.split is None:
            raise DataError(f"{data} has splits, name train or val")
        files = _files(data, wish.how.fold)
        if not files:
            raise DataError(f"{data} has no files CLASS_test_split{wish.how.fold}.txt")
        by_stem = videos_by_stem(data)
        paths, labels, names = [], [], []
        for file in files:
            label = file.name[: -len(f"_test_split{wish.how.fold}.txt")]
            for name in _read(file, _USE[wish.split]):
                paths.append(find_in_class(by_stem, label, name.rpartition(".")[0]))
                labels.append(label)
                names.append(f"{label}/{name}")
        numbers = range(1, len(paths) + 1)
        folder = files[0].parent
        format = f"{self.title}, fold {wish.how.fold}"
        return Rows(folder, numbers, paths, labels, format=format, names=names, are_names=True, unit="video")


def _files(data: Path, fold: int) -> list[Path]:
    pattern = f"*_test_split{fold}.txt"
    return sorted(data.glob(pattern)) or sorted(data.glob(f"*/{pattern}"))


def _read(file: Path, use: str) -> list[str]:
    """Names of the videos that have this use."""
    names, faults = [], []
    for number, line in read_lines(file):
        field = line.rsplit(None, 1)
        if len(field) != 2 or field[1] not in _USES:
            faults.append((number, f"expected `NAME.avi` and 0, 1 or 2, got {line!r}"))
        elif field[1] == use:
            names.append(field[0])
    if faults:
        refuse_lines(file, faults)
    return names
