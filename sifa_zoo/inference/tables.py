"""Predictions, windows and segments as lines of CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sifa_zoo.files import csv_bytes
from sifa_zoo.inference.predict import Prediction
from sifa_zoo.inference.stream import Segment, WindowScores

SEGMENT_COLUMNS = "start,end,class,score,windows\n"


def predictions_csv(predictions: Sequence[Prediction]) -> bytes:
    """A row per video: `path`, `top1`, `score1` and so on, `error`."""
    ranks = range(1, max(len(prediction.scores) for prediction in predictions) + 1)
    rows = []
    for prediction in predictions:
        row: dict[str, Any] = {"path": prediction.path}
        row |= {f"{column}{rank}": "" for rank in ranks for column in ("top", "score")}
        for rank, (name, score) in enumerate(prediction.scores, 1):
            row |= {f"top{rank}": name, f"score{rank}": f"{score:.6f}"}
        rows.append(row | {"error": prediction.error or ""})
    return csv_bytes(rows)


def predictions_json(predictions: Sequence[Prediction]) -> bytes:
    """A list of objects with `path`, `scores` (pairs of name and score) and `error`."""
    return (json.dumps([asdict(p) for p in predictions], indent=2, ensure_ascii=False) + "\n").encode()


def window_json(window: WindowScores) -> str:
    """A line with `type` "window", `start`, `end` and `scores`."""
    return _line({"type": "window", **asdict(window)})


def segment_json(segment: Segment) -> str:
    """A line with `type` "segment", `start`, `end`, `label`, `score` and `windows`."""
    return _line({"type": "segment", **asdict(segment)})


def segment_csv(segment: Segment) -> str:
    """A line of the columns `SEGMENT_COLUMNS`; times in seconds."""
    text = io.StringIO()
    row = [f"{segment.start:.3f}", f"{segment.end:.3f}", segment.label, f"{segment.score:.6f}", segment.windows]
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"
