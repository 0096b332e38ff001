"""The report of an evaluation: one HTML page that can be sent to anyone and read on a phone."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sifa_zoo.datasets.sampling import clip_indices
from sifa_zoo.evaluation.figures import figure_texts, is_complete
from sifa_zoo.evaluation.outcomes import ClassRow, VideoRow
from sifa_zoo.evaluation.pages import render
from sifa_zoo.files import CURVE, LOG
from sifa_zoo.video.load import VideoError
from sifa_zoo.video.reader import open_reader

_MISTAKES, _CONFUSIONS = 12, 10
_STRIP_FRAMES, _STRIP_SIDE = 4, 96  # frames, pixels


def report_html(
    result: Mapping[str, Any], videos: Sequence[VideoRow], classes: Sequence[ClassRow], *, matrix: bytes | None = None
) -> str:
    """The page: figures, what was evaluated, training curves, confusion matrix, classes, the worst mistakes.

    Args:
        result: What `result.json` holds.
        videos: The rows of `videos.csv`; frames of the worst mistakes are read from the video files.
        classes: The rows of `classes.csv`.
        matrix: The picture of the confusion matrix, as PNG.
    """
    complete = is_complete(result)
    wrong = [row for row in videos if row["correct"] == "0"]
    worst = sorted(wrong, key=lambda row: -float(row["score1"]))[:_MISTAKES]
    return render(
        "report.html",
        title=f"{result['arch']} on {result['data']}{'' if complete else ' - INCOMPLETE'}",
        result=result,
        complete=complete,
        failed=[(row["path"], row["error"]) for row in videos if row["error"]],
        figures=figure_texts(result),
        num_wrong=len(wrong),
        mistakes=[(row, _strip(Path(result["root"]) / row["path"])) for row in worst],
        matrix=matrix,
        confused=_confused(classes) if matrix else [],
        classes=_worst_first(classes),
        training=_training(Path(result["run"])),
        settings=_settings(result),
    )


def _strip(path: Path) -> bytes | None:
    """Frames spread over a video, side by side, as JPEG; None if it can no longer be read."""
    try:
        reader = open_reader(path)
        numbers = clip_indices(reader.num_frames, num_frames=_STRIP_FRAMES, sampling="uniform")
        frames = reader.images(numbers, _STRIP_SIDE)
    except VideoError:
        return None
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(frames), axis=1)).save(buffer, "JPEG", quality=70)
    return buffer.getvalue()


def _confused(classes: Sequence[ClassRow]) -> list[tuple[Any, ...]]:
    """The most frequent confusions."""
    most = sorted((row for row in classes if row["times"]), key=lambda row: -row["times"])[:_CONFUSIONS]
    return [(row["class"], row["confused_with"], row["times"], row["count"]) for row in most]


def _worst_first(classes: Sequence[ClassRow]) -> dict[str, Any]:
    """The table of the classes, those without videos last."""
    columns = list(classes[0])
    figure = "accuracy" if "accuracy" in columns else "average_precision"
    rows = sorted(classes, key=lambda row: (row[figure] == "", float(row[figure] or 0)))
    return {
        "figure": figure.replace("_", " "),
        "columns": [name.replace("_", " ") for name in columns],
        "numbers": [i for i, name in enumerate(columns) if name not in ("class", "confused_with")],
        "rows": [list(row.values()) for row in rows],
    }


def _training(run: Path) -> dict[str, Any] | None:
    """The picture of losses and accuracies during training, if the run folder has it."""
    log, curve = run / LOG, run / CURVE
    if not (log.is_file() and curve.is_file()):
        return None
    with open(log, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    last = ", ".join(f"{name} {value}" for name, value in rows[-1].items()) if rows else "no epochs"
    description = f"losses and validation accuracy over {len(rows)} epochs; the last: {last}"
    return {"curve": curve.read_bytes(), "description": description}


def _settings(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = {name: result[name] for name in ("run", "weights_sha256", "root", "format", "classes", "protocol")}
    facts |= result["settings"] | {f"version of {name}": version for name, version in result["versions"].items()}
    return [(name.replace("_", " "), _plain(value)) for name, value in facts.items() if value != ""]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
