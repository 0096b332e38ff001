"""UCF101: `trainlist01.txt`, `testlist01.txt` and so on, and videos `Class/v_x.avi`."""

from __future__ import annotations

from pathlib import Path

from sifa_zoo.datasets.formats.labels import find_class_list
from sifa_zoo.datasets.formats.rows import Rows, Wish
from sifa_zoo.datasets.formats.splits import ANY
from sifa_zoo.datasets.formats.text import read_lines, refuse_lines
from sifa_zoo.datasets.formats.video_files import find_in_class, videos_by_stem
from sifa_zoo.datasets.videos import DataError

_LISTS = "ucfTrainTestlist"


class Ucf101:
    """The three official folds: lists in `ucfTrainTestlist/`, and videos with any suffix in folders named by class.

    The class of a video is the folder that its list names. `classInd.txt` gives the order of the classes, and the
    training lists must agree with its numbers.
    """

    name = "ucf101"
    title = "UCF101"
    expected = "ucfTrainTestlist/trainlist01.txt, testlist01.txt and classInd.txt, and videos CLASS/v_x.avi"

    def find(self, data: Path) -> dict[str, Path]:
        """The folder, if there are such lists."""
        there = data.is_dir() and any((_lists(data) / f"trainlist0{fold}.txt").is_file() for fold in (1, 2, 3))
        return {ANY: data} if there else {}

    def read(self, data: Path, wish: Wish) -> Rows:
        """Reads a split of the fold; `val` and `test` are the test list.

        Raises:
            DataError: If the fold is not there, lines cannot be used, or videos are missing.
        """
        if wish.split is None:
            raise DataError(f"{data} has splits, name train or val")
        name = "trainlist" if wish.split == "train" else "testlist"
        file = _lists(data) / f"{name}0{wish.how.fold}.txt"
        class_list = find_class_list(file.parent)
        numbers, videos, faults = [], [], []
        for number, line in read_lines(file):
            field = line.split()
            numbers.append(number)
            videos.append(field[0])
            folder = field[0].partition("/")[0]
            if len(field) > 2 or "/" not in field[0] or (len(field) == 2 and not field[1].isdecimal()):
                faults.append((number, f"expected `Class/v_x.avi` or `Class/v_x.avi number`, got {line!r}"))
            elif class_list and len(field) == 2 and class_list.numbers.get(int(field[1])) != folder:
                other = class_list.numbers.get(int(field[1]), "no class")
                faults.append((number, f"{folder} has the number {field[1]}, which is {other} in {class_list.file}"))
        if faults:
            refuse_lines(file, faults)
        labels = [video.partition("/")[0] for video in videos]
        by_stem = videos_by_stem(data)
        paths = [
            find_in_class(by_stem, label, video.rpartition("/")[2].rpartition(".")[0])
            for label, video in zip(labels, videos, strict=True)
        ]
        format = f"{self.title}, fold {wish.how.fold}"
        return Rows(file, numbers, paths, labels, format=format, names=videos, class_list=class_list, are_names=True)


def _lists(data: Path) -> Path:
    return data / _LISTS if (data / _LISTS).is_dir() else data
