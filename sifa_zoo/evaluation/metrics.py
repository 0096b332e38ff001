"""Figures from scores and labels, each computed once from the rows of all videos, never as a mean of means.

Each takes a few lines of torch; the tests compare them with torchmetrics, whose import takes longer than torch's own.
"""

from __future__ import annotations

import torch
from torch import Tensor


def topk_accuracy(scores: Tensor, labels: Tensor, *, k: int = 1) -> float:
    """Percentage of rows whose label, or one of whose labels, is among the k best scores.

    Args:
        scores: float `(N, num_classes)`.
        labels: int64 `(N,)`, or bool `(N, num_classes)`.
        k: Clamped to the number of classes.

    Returns:
        NaN if there are no rows.

    Example:
        >>> topk_accuracy(torch.tensor([[0.6, 0.4], [0.7, 0.3]]), torch.tensor([0, 1]))
        50.0
    """
    best = scores.topk(min(k, scores.shape[-1])).indices
    return percent(among(best, labels))


def among(classes: Tensor, labels: Tensor) -> Tensor:
    """Whether a row's label, or one of its labels, is among the classes `(N, ..., k)`: bool `(N, ...)`."""
    if labels.ndim == 1:
        return (classes == labels.view(-1, *[1] * (classes.ndim - 1))).any(-1)
    return labels.gather(1, classes.flatten(1)).view(classes.shape).any(-1)


def percent(hits: Tensor) -> float:
    """Percentage of true values; NaN for an empty tensor."""
    return 100 * hits.double().mean().item()


def class_accuracy(matrix: Tensor) -> Tensor:
    """Accuracy per class in percent, float64 `(num_classes,)`, of a confusion matrix; NaN for a class without rows."""
    return 100 * matrix.diagonal().double() / matrix.sum(1)


def confusion_matrix(predicted: Tensor, labels: Tensor, *, num_classes: int) -> Tensor:
    """Counts, int64 `(num_classes, num_classes)`: a row per true class, a column per predicted one.

    Args:
        predicted: int64 `(N,)`.
        labels: int64 `(N,)`.
        num_classes: Classes of the head.
    """
    pairs = torch.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """Average precision per class in percent, float64 `(num_classes,)`: precision at each score, weighted by recall.

    Args:
        scores: float `(N, num_classes)`; equal scores count as one threshold.
        labels: bool `(N, num_classes)`.

    Returns:
        NaN for a class that no row has.
    """
    columns = zip(scores.unbind(1), labels.unbind(1), strict=True)
    return 100 * torch.stack([_average_precision(score, label) for score, label in columns])


def mean_known(values: Tensor) -> float:
    """The mean over the classes that have a value; NaN if none has."""
    return values.nanmean().item()


def _average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    order = scores.argsort(descending=True)
    scores, hits = scores[order], labels[order].double().cumsum(0)
    last = torch.ones_like(scores, dtype=torch.bool)  # the last row of each run of equal scores
    last[:-1] = scores[1:] != scores[:-1]
    rows = last.nonzero()[:, 0]
    precision = hits[rows] / (rows + 1)
    recall = hits[rows] / labels.sum()
    return (precision * recall.diff(prepend=recall.new_zeros(1))).sum()
