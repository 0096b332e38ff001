"""What became of each video and each class: the tables of an evaluation.

    videos.csv      path, label, correct, top1, score1 to top5, score5, view1 to viewN (the best class of each), error
    classes.csv     class, count, correct, accuracy, confused_with, times (its most frequent mistake)
                    or, where a video may have several labels, class, count, average_precision
    confusion.csv   a row per true class, a column per predicted one; only for one label per video

A cell is empty where there is nothing to say: of a video that was not evaluated, of a class without videos.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from torch import Tensor

from sifa_zoo.datasets.shard_list import ShardList
from sifa_zoo.datasets.videos import VideoList
from sifa_zoo.evaluation.metrics import average_precision, class_accuracy
from sifa_zoo.evaluation.scores import TOP, VideoScores

SEPARATOR = " | "  # between the labels of a video
VideoRow: TypeAlias = dict[str, str]
ClassRow: TypeAlias = dict[str, Any]


def video_rows(rows: VideoScores, videos: VideoList | ShardList, *, root: str) -> list[VideoRow]:
    """A row for each video that the data names, with its path relative to `root` if it lies below."""
    names = videos.class_names
    ranks = range(1, min(TOP, len(names)) + 1)
    num_views = rows.views.shape[1] if len(rows) else 0
    columns = ["path", "label", "correct", *(f"{name}{rank}" for rank in ranks for name in ("top", "score"))]
    columns += [*(f"view{view}" for view in range(1, num_views + 1)), "error"]
    table = []
    for named in _named(rows, videos):
        row = dict.fromkeys(columns, "") | {"path": _relative(named.path, root), "error": named.error}
        row["label"] = SEPARATOR.join(names[number] for number in named.labels)
        if named.place is not None:
            best = rows.scores[named.place].topk(len(ranks))
            classes = best.indices.tolist()
            row["correct"] = str(int(classes[0] in named.labels))
            for rank, number, score in zip(ranks, classes, best.values.tolist(), strict=True):
                row |= {f"top{rank}": names[number], f"score{rank}": f"{score:.6f}"}
            views = rows.views[named.place, :, 0].tolist()
            row |= {f"view{view}": names[number] for view, number in enumerate(views, 1)}
        table.append(row)
    return table


def accuracy_rows(matrix: Tensor, class_names: Sequence[str]) -> list[ClassRow]:
    """A row for each class of a confusion matrix."""
    wrong = matrix.numpy().copy()
    np.fill_diagonal(wrong, 0)
    table = []
    for i, (name, accuracy) in enumerate(zip(class_names, class_accuracy(matrix).tolist(), strict=True)):
        other = int(wrong[i].argmax())
        times = int(wrong[i, other])
        row = {"class": name, "count": int(matrix[i].sum()), "correct": int(matrix[i, i])}
        row |= {"accuracy": _two_decimals(accuracy)}
        row |= {"confused_with": class_names[other] if times else "", "times": times or ""}
        table.append(row)
    return table


def precision_rows(rows: VideoScores, class_names: Sequence[str]) -> list[ClassRow]:
    """A row for each class, where a video may have several."""
    precisions = average_precision(rows.scores, rows.labels).tolist()
    return [
        {"class": name, "count": count, "average_precision": _two_decimals(precision)}
        for name, count, precision in zip(class_names, rows.labels.sum(0).tolist(), precisions, strict=True)
    ]


def confusion_csv(matrix: Tensor, class_names: Sequence[str]) -> bytes:
    """A confusion matrix as CSV, with the names of the classes in the first row and column."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true / predicted", *class_names])
    writer.writerows([name, *row] for name, row in zip(class_names, matrix.tolist(), strict=True))
    return text.getvalue().encode()


class _Named(NamedTuple):
    """A video that the data names: its path, its labels, and its place among the rows or why it has none."""

    path: str
    labels: list[int]
    place: int | None = None
    error: str = ""


def _named(rows: VideoScores, videos: VideoList | ShardList) -> Iterator[_Named]:
    """The videos in the order of the list; for shards, which have no list, those evaluated, then those that failed."""
    if isinstance(videos, ShardList):
        for place, name in enumerate(rows.names):
            yield _Named(name, _numbers(rows.labels[place].numpy()), place)
        for line in rows.failed:
            shard, _, sample = line.rpartition(", sample ")
            key, _, why = sample.partition(": ")
            yield _Named(f"{shard}, sample {key}", [], error=why)
        return
    places = {index: place for place, index in enumerate(rows.indices.tolist())}
    for index, path in enumerate(videos.paths):
        why = "" if index in places else _why(path, rows.failed)
        yield _Named(path, _numbers(videos.labels[index]), places.get(index), why)
    for name in videos.missing:
        yield _Named(name, [], error="does not exist, left out on request")


def _numbers(label: np.ndarray) -> list[int]:
    """The classes that a label names: itself, or for booleans `(num_classes,)` the places of the true ones."""
    return np.flatnonzero(label).tolist() if label.ndim else [int(label)]


def _relative(path: str, root: str) -> str:
    """The path inside the data folder, so that results of two machines compare; unchanged if it lies elsewhere."""
    if "://" in path:
        return path.removeprefix(f"{root}/")
    absolute = Path(path).absolute()
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else path


def _why(path: str, failed: Sequence[str]) -> str:
    """Why the video at a path failed, taken from lines `path: reason`."""
    return next((line.removeprefix(f"{path}: ") for line in failed if line.startswith(f"{path}: ")), "not evaluated")


def _two_decimals(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"
