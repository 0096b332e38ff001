"""The folder of an evaluation: `result.json`, tables of videos and classes, the confusion matrix, the report."""

from __future__ import annotations

import csv
import json
import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

from sifa_zoo import __version__
from sifa_zoo.data.videos import VideoList
from sifa_zoo.engine.checkpoint import write_files
from sifa_zoo.engine.confusion import confusion_csv, draw_confusion
from sifa_zoo.engine.log import log_csv
from sifa_zoo.engine.metrics import average_precision, class_accuracy
from sifa_zoo.engine.report import report_html
from sifa_zoo.engine.scores import TOP, VideoScores, confusion, is_complete, labels_of
from sifa_zoo.hub import file_sha256
from sifa_zoo.weights import find_weights, weights_file

RESULT, VIDEOS, REPORT = "result.json", "videos.csv", "report.html"
SEPARATOR = " | "
Row = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """An evaluation as its folder holds it: `result.json`, and the rows of `videos.csv`."""

    folder: Path
    result: dict[str, Any]
    videos: list[dict[str, str]]


def describe(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    videos: VideoList,
    arch: str,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """What was evaluated on what.

    Returns:
        `arch`, `run`, `weights_sha256`; `data` (the name of the folder or list), `root` (the folder that paths in
        `videos.csv` are relative to) and `format`; `classes` (their number), `class_names`, `multi_label`; `settings`;
        `versions`.
    """
    weights = weights_file(Path(run)) if Path(run).exists() else find_weights(os.fspath(run)).path
    source = Path(os.path.abspath(data))
    versions = {"sifa_zoo": __version__, "torch": torch.__version__, "timm": timm.__version__}
    return {
        "arch": arch,
        "run": os.fspath(run),
        "weights_sha256": file_sha256(weights),
        "data": source.resolve().stem,
        "root": str(source if source.is_dir() else source.parent),
        "format": videos.format,
        "classes": len(videos.class_names),
        "class_names": videos.class_names,
        "multi_label": videos.multi_label,
        "settings": settings,
        "versions": {**versions, "python": platform.python_version()},
    }


def result_json(result: dict[str, Any]) -> bytes:
    """The result with its `status`, "complete" or "INCOMPLETE"; a figure that there is none of is null."""
    known = {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in result.items()}
    known["status"] = "complete" if is_complete(result) else "INCOMPLETE"
    return (json.dumps(known, indent=2, ensure_ascii=False) + "\n").encode()


def write_results(folder: Path, result: dict[str, Any], *, rows: VideoScores, videos: VideoList) -> None:
    """Write `result.json`, `videos.csv`, `classes.csv`, `report.html` and, for one label per video, `confusion.csv` and
    `confusion.png`; each is whole or not there.

    Raises:
        OSError: If they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    video_table = video_rows(rows, videos, root=result["root"])
    class_table = class_rows(rows, videos)
    files = {"videos.csv": log_csv(video_table), "classes.csv": log_csv(class_table)}
    if not videos.multi_label:
        matrix = confusion(rows, videos).numpy()
        files["confusion.csv"] = confusion_csv(matrix, videos.class_names)
        files["confusion.png"] = draw_confusion(matrix, videos.class_names)
    page = report_html(result, video_table, class_table, matrix=files.get("confusion.png"))
    files |= {REPORT: page.encode(), RESULT: result_json(result)}
    write_files({folder / name: content for name, content in files.items()})


def read_results(path: str | os.PathLike[str]) -> Results:
    """The evaluation in a folder, which may be named by its `result.json`.

    Raises:
        ValueError: If there is none, or a file of it is missing or damaged.
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
        raise ValueError(f"{path} is no result of `sifa-zoo eval --output`: it lacks {', '.join(sorted(missing))}")
    return Results(folder, result, videos)


def video_rows(rows: VideoScores, videos: VideoList, *, root: str) -> list[Row]:
    """A row per video that the data names: its path (relative to `root` where it lies in there) and label, the best
    classes with their scores, each view's best class, and why it was not evaluated."""
    names = videos.class_names
    ranks = range(1, min(TOP, len(names)) + 1)
    num_views = rows.views.shape[1] if len(rows) else 0
    blank: Row = {"path": "", "label": "", "correct": ""}
    blank |= {f"{column}{rank}": "" for rank in ranks for column in ("top", "score")}
    blank |= {f"view{view}": "" for view in range(1, num_views + 1)} | {"error": ""}
    evaluated = set(rows.indices.tolist())
    table = []
    for index, path in enumerate(videos.paths):
        why = "" if index in evaluated else _why(path, rows.failed)
        table.append(blank | {"path": _relative(path, root), "label": label_text(videos, index), "error": why})
    for place, index in enumerate(rows.indices.tolist()):
        best = rows.scores[place].topk(len(ranks))
        classes = best.indices.tolist()
        row = table[index] | {"correct": int(_is_label(videos, index, classes[0]))}
        for rank, number, score in zip(ranks, classes, best.values.tolist(), strict=True):
            row |= {f"top{rank}": names[number], f"score{rank}": f"{score:.6f}"}
        row |= {f"view{view}": names[number] for view, number in enumerate(rows.views[place, :, 0].tolist(), 1)}
        table[index] = row
    return table + [blank | {"path": name, "error": "does not exist, left out on request"} for name in videos.missing]


def class_rows(rows: VideoScores, videos: VideoList) -> list[Row]:
    """A row per class: evaluated videos, and how well they were told; empty where a class has none."""
    names = videos.class_names
    if videos.multi_label:
        labels = labels_of(rows, videos)
        precisions = average_precision(rows.scores, labels).tolist()
        counts = labels.sum(0).tolist()
        return [
            {"class": name, "count": count, "average_precision": _two(precision)}
            for name, count, precision in zip(names, counts, precisions, strict=True)
        ]
    matrix = confusion(rows, videos)
    accuracies = class_accuracy(matrix).tolist()
    wrong = matrix.numpy() * (1 - np.eye(len(names), dtype=np.int64))
    table = []
    for i, name in enumerate(names):
        other = int(wrong[i].argmax())
        times = int(wrong[i, other])
        row = {"class": name, "count": int(matrix[i].sum()), "correct": int(matrix[i, i])}
        row |= {"accuracy": _two(accuracies[i]), "confused_with": names[other] if times else "", "times": times or ""}
        table.append(row)
    return table


def label_text(videos: VideoList, index: int) -> str:
    """The label of a video, several joined by ` | `."""
    if not videos.multi_label:
        return videos.class_names[videos.labels[index]]
    return SEPARATOR.join(videos.class_names[i] for i in np.flatnonzero(videos.labels[index]))


def _is_label(videos: VideoList, index: int, number: int) -> bool:
    label = videos.labels[index]
    return bool(label[number]) if videos.multi_label else bool(label == number)


def _relative(path: str, root: str) -> str:
    """The path in the data folder, so that results of two machines compare; as it is where it lies elsewhere."""
    absolute = Path(path).absolute()
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else path


def _why(path: str, failed: tuple[str, ...]) -> str:
    """What was wrong with the video at a path, of the lines `path: reason`."""
    return next((line.removeprefix(f"{path}: ") for line in failed if line.startswith(f"{path}: ")), "not evaluated")


def _two(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"
