"""The folder of an evaluation: `result.json`, tables of videos and classes, the confusion matrix, the report."""

from __future__ import annotations

import csv
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sifa_zoo.datasets.reading import is_pattern
from sifa_zoo.datasets.shard_list import ShardList
from sifa_zoo.datasets.videos import VideoList
from sifa_zoo.evaluation.charts import draw_confusion, png
from sifa_zoo.evaluation.figures import confusion, is_complete
from sifa_zoo.evaluation.outcomes import VideoRow, accuracy_rows, confusion_csv, precision_rows, video_rows
from sifa_zoo.evaluation.report import report_html
from sifa_zoo.evaluation.scores import VideoScores
from sifa_zoo.files import csv_bytes, write_files
from sifa_zoo.runtime.checkpoint import weights_sha256
from sifa_zoo.runtime.provenance import versions

RESULT, VIDEOS, CLASSES, REPORT = "result.json", "videos.csv", "classes.csv", "report.html"
MATRIX, MATRIX_PICTURE = "confusion.csv", "confusion.png"  # only for one label per video


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
        "weights_sha256": weights_sha256(run),
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
    """Write the files of an evaluation; each is complete or absent, and none is left from an earlier one.

    Raises:
        OSError: If they cannot be written.
    """
    names = videos.class_names
    matrix = None if videos.multi_label else confusion(rows)
    video_table = video_rows(rows, videos, root=result["root"])
    class_table = precision_rows(rows, names) if matrix is None else accuracy_rows(matrix, names)
    files = {VIDEOS: csv_bytes(video_table), CLASSES: csv_bytes(class_table)}
    if matrix is not None:
        picture = png(draw_confusion(matrix.numpy(), names), bbox_inches="tight")
        files |= {MATRIX: confusion_csv(matrix, names), MATRIX_PICTURE: picture}
    page = report_html(result, video_table, class_table, matrix=files.get(MATRIX_PICTURE))
    files |= {REPORT: page.encode(), RESULT: result_json(result)}
    folder.mkdir(parents=True, exist_ok=True)
    write_files({folder / name: content for name, content in files.items()})
    for name in {MATRIX, MATRIX_PICTURE} - files.keys():
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
