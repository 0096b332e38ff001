"""The folder of an evaluation: `result.json`, tables of videos and classes, the confusion matrix, the report."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from sifa_zoo.datasets.reading import is_pattern
from sifa_zoo.datasets.shard_list import ShardList
from sifa_zoo.datasets.videos import VideoList
from sifa_zoo.evaluation.confusion import confusion_csv, draw_confusion
from sifa_zoo.evaluation.metrics import average_precision, class_accuracy
from sifa_zoo.evaluation.report import TableRow, report_html
from sifa_zoo.evaluation.scores import TOP, VideoScores, confusion, is_complete
from sifa_zoo.files import csv_bytes, write_files
from sifa_zoo.runtime.provenance import versions
from sifa_zoo.weights.finding import locate_weights
from sifa_zoo.weights.hub import file_sha256

RESULT, VIDEOS, REPORT = "result.json", "videos.csv", "report.html"
SEPARATOR = " | "
VideoRow: TypeAlias = dict[str, str]  # a row of videos.csv as it is read


@dataclass(frozen=True)
class Results:
    """An evaluation as its folder holds it: `result.json`, and the rows of `videos.csv`."""

    folder: Path
    result: dict[str, Any]
    videos: list[VideoRow]


def describe(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    videos: VideoList | ShardList,
    arch: str,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """The facts of an evaluation: which weights, on which data, with which settings.

    Returns:
        `arch`, `run`, `weights_sha256`; `data` (the name of the folder or list), `root` (the folder that paths in
        `videos.csv` are relative to) and `format`; `classes` (their number), `class_names`, `multi_label`; `settings`;
        `versions`.
    """
    source = Path(os.path.abspath(data))
    root = str(source if source.is_dir() else source.parent)
    if is_pattern(os.fspath(data)) and "://" in os.fspath(data):
        root = os.fspath(data).rpartition("/")[0] if os.fspath(data).endswith(".tar") else os.fspath(data)
    return {
        "arch": arch,
        "run": os.fspath(run),
        "weights_sha256": file_sha256(locate_weights(run).path),
        "data": source.resolve().name if source.is_dir() else source.stem,
        "root": root,
        "format": videos.format,
        "classes": len(videos.class_names),
        "class_names": videos.class_names,
        "multi_label": videos.multi_label,
        "settings": settings,
        "versions": versions(),
    }


def result_json(result: dict[str, Any]) -> bytes:
    """The result with its `status`, "complete" or "INCOMPLETE"; figures without a value are null."""
    known = {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in result.items()}
    known["status"] = "complete" if is_complete(result) else "INCOMPLETE"
    return (json.dumps(known, indent=2, ensure_ascii=False) + "\n").encode()


def write_results(folder: Path, result: dict[str, Any], *, rows: VideoScores, videos: VideoList | ShardList) -> None:
    """Write `result.json`, `videos.csv`, `classes.csv`, `report.html` and, for one label per video, `confusion.csv` and
    `confusion.png`; each is complete or absent. Pictures and tables left from an earlier result are removed.

    Raises:
        OSError: If they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    video_table = video_rows(rows, videos, root=result["root"])
    class_table = class_rows(rows, videos)
    files = {"videos.csv": csv_bytes(video_table), "classes.csv": csv_bytes(class_table)}
    if not videos.multi_label:
        matrix = confusion(rows).numpy()
        files["confusion.csv"] = confusion_csv(matrix, videos.class_names)
        files["confusion.png"] = draw_confusion(matrix, videos.class_names)
    page = report_html(result, video_table, class_table, matrix=files.get("confusion.png"))
    files |= {REPORT: page.encode(), RESULT: result_json(result)}
    write_files({folder / name: content for name, content in files.items()})
    for name in {"confusion.csv", "confusion.png"} - files.keys():
        (folder / name).unlink(missing_ok=True)


def read_results(path: str | os.PathLike[str]) -> Results:
    """The evaluation in a folder, which may also be named by its `result.json`.

    Raises:
        ValueError: If the folder holds none, or a file is missing or damaged.
    """
    folder = Path(path)
    folder = folder.parent if folder.name == RESULT else folder
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        with open(folder / VIDEOS, encoding="utf-8", newline="") as file:
            videos = list(csv.DictReader(file))
        missing = {"protocol", "videos", "expected", "arch", "settings", "class_names"} - result.keys()
        missing |= {"path", "label", "top1", "score1", "error"} - (videos[0].keys() if videos else set())
    except OSError as error:
        raise ValueError(
            f"{path} is no folder of `sifa-zoo eval --output FOLDER`: {error.strerror}: {error.filename}"
        ) from error
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{folder / RESULT} is damaged: {error}") from error
    if missing:
        raise ValueError(f"{path} is not a result of `sifa-zoo eval --output`: it lacks {', '.join(sorted(missing))}")
    return Results(folder, result, videos)


def video_rows(rows: VideoScores, videos: VideoList | ShardList, *, root: str) -> list[TableRow]:
    """A row per video that the data names: its path (relative to `root` if it lies below) and label, the best classes
    with their scores, the best class of each view, and the reason if it was not evaluated."""
    names = videos.class_names
    ranks = range(1, min(TOP, len(names)) + 1)
    num_views = rows.views.shape[1] if len(rows) else 0
    blank: TableRow = {"path": "", "label": "", "correct": ""}
    blank |= {f"{column}{rank}": "" for rank in ranks for column in ("top", "score")}
    blank |= {f"view{view}": "" for view in range(1, num_views + 1)} | {"error": ""}
    table = []
    for named in _named(rows, videos):
        row = blank | {"path": _relative(named.name, root), "error": named.error}
        row |= {} if named.label is None else {"label": label_text(named.label, names)}
        if named.place is not None:
            best = rows.scores[named.place].topk(len(ranks))
            classes = best.indices.tolist()
            row["correct"] = int(_is_label(named.label, classes[0]))
            for rank, number, score in zip(ranks, classes, best.values.tolist(), strict=True):
                row |= {f"top{rank}": names[number], f"score{rank}": f"{score:.6f}"}
            views = rows.views[named.place, :, 0].tolist()
            row |= {f"view{view}": names[number] for view, number in enumerate(views, 1)}
        table.append(row)
    return table


def class_rows(rows: VideoScores, videos: VideoList | ShardList) -> list[TableRow]:
    """A row per class: evaluated videos, and how well they were classified; empty for a class without any."""
    names = videos.class_names
    if videos.multi_label:
        labels = rows.labels
        precisions = average_precision(rows.scores, labels).tolist()
        counts = labels.sum(0).tolist()
        return [
            {"class": name, "count": count, "average_precision": _two_decimals(precision)}
            for name, count, precision in zip(names, counts, precisions, strict=True)
        ]
    matrix = confusion(rows)
    accuracies = class_accuracy(matrix).tolist()
    wrong = matrix.numpy() * (1 - np.eye(len(names), dtype=np.int64))
    table = []
    for i, name in enumerate(names):
        other = int(wrong[i].argmax())
        times = int(wrong[i, other])
        row = {"class": name, "count": int(matrix[i].sum()), "correct": int(matrix[i, i])}
        row |= {
            "accuracy": _two_decimals(accuracies[i]),
            "confused_with": names[other] if times else "",
            "times": times or "",
        }
        table.append(row)
    return table


def label_text(label: np.ndarray, class_names: Sequence[str]) -> str:
    """The name of a label; for booleans `(num_classes,)`, the names joined by ` | `."""
    if not label.ndim:
        return class_names[int(label)]
    return SEPARATOR.join(class_names[i] for i in np.flatnonzero(label).tolist())


class _Named(NamedTuple):
    """A video that the data names, its place among the rows (None: not evaluated) and its label (None: unknown)."""

    name: str
    place: int | None = None
    label: Any = None
    error: str = ""


def _named(rows: VideoScores, videos: VideoList | ShardList) -> Iterator[_Named]:
    """The videos in the order of the list; for shards, which have no list, those evaluated, then those that failed."""
    labels = rows.labels.numpy()
    if isinstance(videos, ShardList):
        for place, name in enumerate(rows.names):
            yield _Named(name, place, labels[place])
        for line in rows.failed:
            shard, _, sample = line.rpartition(", sample ")
            key, _, why = sample.partition(": ")
            yield _Named(f"{shard}, sample {key}", error=why)
        return
    places = {index: place for place, index in enumerate(rows.indices.tolist())}
    for index, path in enumerate(videos.paths):
        why = "" if index in places else _why(path, rows.failed)
        yield _Named(path, places.get(index), videos.labels[index], why)
    for name in videos.missing:
        yield _Named(name, error="does not exist, left out on request")


def _is_label(label: np.ndarray, number: int) -> bool:
    return bool(label[number]) if label.ndim else bool(label == number)


def _relative(path: str, root: str) -> str:
    """The path inside the data folder, so that results of two machines compare; unchanged if it lies elsewhere."""
    if "://" in path:
        return path.removeprefix(f"{root}/")
    absolute = Path(path).absolute()
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else path


def _why(path: str, failed: tuple[str, ...]) -> str:
    """Why the video at a path failed, taken from lines `path: reason`."""
    return next((line.removeprefix(f"{path}: ") for line in failed if line.startswith(f"{path}: ")), "not evaluated")


def _two_decimals(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"
