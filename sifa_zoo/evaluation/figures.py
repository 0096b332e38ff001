"""The figures of an evaluation: each computed once from the rows of all videos, and as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from sifa_zoo.datasets.shard_list import ShardList
from sifa_zoo.datasets.videos import VideoList
from sifa_zoo.evaluation.metrics import (
    among,
    average_precision,
    class_accuracy,
    confusion_matrix,
    mean_known,
    percent,
    topk_accuracy,
)
from sifa_zoo.evaluation.scores import TOP, VideoScores

FIGURES = {  # key of the result -> name and unit
    "top1": ("top-1", "%"),
    "top5": ("top-5", "%"),
    "mean_class_accuracy": ("mean class accuracy", "%"),
    "map": ("mAP", "%"),
    "clip_top1": ("clip top-1", "%"),
    "clip_top5": ("clip top-5", "%"),
    "loss": ("loss", ""),
}


def summarise(rows: VideoScores, videos: VideoList | ShardList) -> dict[str, Any]:
    """The figures, and the number of videos behind them."""
    counts = {"videos": len(rows), "expected": len(videos) + videos.num_missing, "failed": rows.failed}
    return {**figures(rows, multi_label=videos.multi_label), **counts}


def is_complete(result: Mapping[str, Any]) -> bool:
    """Whether every video that the data names was evaluated."""
    return result["videos"] == result["expected"]


def figures(rows: VideoScores, *, multi_label: bool = False) -> dict[str, float]:
    """Accuracies in percent over videos and over views, and the loss of the averaged scores; NaN without rows.

    Returns:
        `top1`, `top5` (of all classes where there are fewer), `clip_top1`, `clip_top5`, `loss`, and
        `mean_class_accuracy`, or for multi-label `map`. A video with several labels counts if one is.
    """
    names = ["top1", "top5", "clip_top1", "clip_top5", "map" if multi_label else "mean_class_accuracy", "loss"]
    if not len(rows):
        return dict.fromkeys(names, float("nan"))
    labels, scores, views = rows.labels, rows.scores, rows.views.long()
    tops = [topk_accuracy(scores, labels), topk_accuracy(scores, labels, k=TOP)]
    tops += [percent(among(views[..., :1], labels)), percent(among(views, labels))]
    if multi_label:
        mean = mean_known(average_precision(scores, labels))
        loss = F.binary_cross_entropy(scores, labels.float())
    else:
        mean = mean_known(class_accuracy(confusion(rows)))
        loss = F.nll_loss(scores.clamp_min(1e-12).log(), labels)
    return dict(zip(names, [*tops, mean, loss.item()], strict=True))


def confusion(rows: VideoScores) -> Tensor:
    """The confusion matrix of the best class of each video."""
    best = rows.scores.argmax(1)
    return confusion_matrix(best, rows.labels, num_classes=rows.scores.shape[1])


def figure_texts(result: Mapping[str, Any]) -> dict[str, str]:
    """The figures of a result, by name, each with its unit."""
    return {name: figure_text(key, result[key]) for key, (name, _) in FIGURES.items() if key in result}


def figure_text(key: str, value: float | None) -> str:
    """A figure with its unit."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.2f} %" if FIGURES[key][1] else f"{value:.4f}"
