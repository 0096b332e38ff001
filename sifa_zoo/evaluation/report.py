"""The report of an evaluation: one HTML page that can be sent to anyone and read on a phone."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from sifa_zoo.datasets.frame_sampling import clip_indices
from sifa_zoo.evaluation.page import card, folded, page, paragraph, picture, section, table, tiles, wide_picture
from sifa_zoo.evaluation.scores import is_complete
from sifa_zoo.files import CURVE, LOG
from sifa_zoo.video.load import VideoError, load_video, video_info

TableRow: TypeAlias = dict[str, Any]  # of videos.csv or classes.csv

FIGURES = {  # key of the result -> name and unit
    "top1": ("top-1", "%"),
    "top5": ("top-5", "%"),
    "mean_class_accuracy": ("mean class accuracy", "%"),
    "map": ("mAP", "%"),
    "clip_top1": ("clip top-1", "%"),
    "clip_top5": ("clip top-5", "%"),
    "loss": ("loss", ""),
}
_MISTAKES, _CONFUSIONS = 12, 10
_STRIP_FRAMES, _STRIP_SIDE = 4, 96  # frames, pixels
_SHOWN = 20  # rows of a table before the rest is folded away


def report_html(
    result: Mapping[str, Any],
    videos: Sequence[TableRow],
    classes: Sequence[TableRow],
    *,
    matrix: bytes | None = None,
) -> str:
    """The page: figures, what was evaluated, training curves, confusion matrix, classes, the worst mistakes.

    Args:
        result: What `result.json` holds.
        videos: The rows of `videos.csv`; frames of the worst mistakes are read from the video files.
        classes: The rows of `classes.csv`.
        matrix: The picture of the confusion matrix, as PNG.
    """
    status = "" if is_complete(result) else " - INCOMPLETE"
    over = f"{result['videos']} of {result['expected']} videos, {result['protocol']}"
    return page(
        f"{result['arch']} on {result['data']}{status}",
        paragraph(over),
        _missing(result, videos),
        tiles({name: figure_text(key, result[key]) for key, (name, _) in FIGURES.items() if key in result}),
        _mistakes(result, videos),
        _confusion(result, classes, matrix),
        _classes(classes),
        _curves(Path(result["run"])),
        _settings(result),
    )


def figure_text(key: str, value: float | None) -> str:
    """A figure with its unit, as a person reads it."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.2f} %" if FIGURES[key][1] else f"{value:.4f}"


def _missing(result: Mapping[str, Any], videos: Sequence[TableRow]) -> str:
    """The banner above a result with missing videos."""
    if is_complete(result):
        return ""
    lacking = result["expected"] - result["videos"]
    bad = [(row["path"], row["error"]) for row in videos if row["error"]]
    text = f"Not evaluated: {lacking} of {result['expected']} videos. The figures cannot be compared with others."
    listed = table(["video", "why"], bad[:_SHOWN], caption="videos that were not evaluated")
    rest = paragraph(f"and {len(bad) - _SHOWN} more in videos.csv") if len(bad) > _SHOWN else ""
    return section("INCOMPLETE", paragraph(text), listed, rest, css="banner")


def _mistakes(result: Mapping[str, Any], videos: Sequence[TableRow]) -> str:
    """The most confident mistakes, with frames of the video."""
    wrong = [row for row in videos if row["correct"] == 0]
    if not wrong:
        return section("Worst mistakes", paragraph("None: every evaluated video was classified correctly."))
    worst = sorted(wrong, key=lambda row: -float(row["score1"]))[:_MISTAKES]
    cards = [
        card(
            _strip(Path(result["root"]) / row["path"], row["path"]),
            row["path"],
            f"is: {row['label'] or 'none of the classes'}",
            f"predicted: {row['top1']}, {100 * float(row['score1']):.1f} %",
        )
        for row in worst
    ]
    text = f"{len(wrong)} videos were misclassified; these are the {len(worst)} most confident mistakes."
    return section("Worst mistakes", paragraph(text, css="faint"), f'<div class="cards">{"".join(cards)}</div>')


def _strip(path: Path, name: str) -> str:
    """Frames spread over a video, side by side."""
    try:
        count = video_info(path).num_frames
        indices = clip_indices(count, num_frames=_STRIP_FRAMES, sampling="uniform")
        frames = load_video(path, indices, _STRIP_SIDE)
    except VideoError:
        return paragraph("The video can no longer be read.", css="faint")
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(frames), axis=1)).save(buffer, "JPEG", quality=70)
    return picture(buffer.getvalue(), kind="jpeg", alt=f"{_STRIP_FRAMES} frames of {name}")


def _confusion(result: Mapping[str, Any], classes: Sequence[TableRow], matrix: bytes | None) -> str:
    """The matrix, and a table of the most frequent confusions."""
    if matrix is None:
        return ""
    text = "A row per true class, a column per predicted class; the darker, the larger the share of the row."
    alt = f"confusion matrix of {result['classes']} classes; confusion.csv holds its counts"
    confused = sorted((row for row in classes if row["times"]), key=lambda row: -row["times"])[:_CONFUSIONS]
    rows = [(row["class"], row["confused_with"], row["times"], row["count"]) for row in confused]
    headers = ["true class", "predicted", "times", "of"]
    listed = table(headers, rows, numbers=(2, 3), caption="most frequent confusions") if rows else ""
    return section("Confusion matrix", paragraph(text, css="faint"), wide_picture(matrix, alt=alt), listed)


def _classes(classes: Sequence[TableRow]) -> str:
    """The classes, worst first, and those without videos last."""
    figure = "accuracy" if "accuracy" in classes[0] else "average_precision"
    rows = sorted(classes, key=lambda row: (row[figure] == "", float(row[figure] or 0)))
    headers = [name.replace("_", " ") for name in classes[0]]
    numbers = [i for i, name in enumerate(classes[0]) if name not in ("class", "confused_with")]
    shown, rest = ([list(row.values()) for row in part] for part in (rows[:_SHOWN], rows[_SHOWN:]))
    parts = [table(headers, shown, numbers=numbers, caption="classes, worst first")]
    if rest:
        more = table(headers, rest, numbers=numbers, caption="further classes")
        parts.append(folded(f"{len(rest)} further classes", more))
    text = f"Worst first; {figure.replace('_', ' ')} in percent."
    return section("Classes", paragraph(text, css="faint"), *parts)


def _curves(run: Path) -> str:
    """Losses and accuracies during training, if the run folder has them."""
    log, curve = run / LOG, run / CURVE
    if not (log.is_file() and curve.is_file()):
        return ""
    with open(log, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    last = ", ".join(f"{name} {value}" for name, value in rows[-1].items()) if rows else "no epochs"
    alt = f"losses and validation accuracy over {len(rows)} epochs; the last: {last}"
    return section("Training", wide_picture(curve.read_bytes(), alt=alt, css="large"))


def _settings(result: Mapping[str, Any]) -> str:
    facts = {name: result[name] for name in ("run", "weights_sha256", "root", "format", "classes", "protocol")}
    facts |= result["settings"] | {f"version of {name}": version for name, version in result["versions"].items()}
    rows = [(name.replace("_", " "), _plain(value)) for name, value in facts.items() if value != ""]
    return section("What was evaluated", table(["setting", "value"], rows, caption="settings of the evaluation"))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
