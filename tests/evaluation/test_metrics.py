from __future__ import annotations

import math

import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multilabel_average_precision,
)

from sifa_zoo.evaluation.metrics import (
    among,
    average_precision,
    class_accuracy,
    confusion_matrix,
    mean_known,
    percent,
    topk_accuracy,
)

SCORES = torch.randn(60, 7, generator=torch.Generator().manual_seed(0)).softmax(-1)
LABELS = torch.randint(0, 7, (60,), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("k", [1, 3, 5])
def test_topk_accuracy(k: int) -> None:
    expected = 100 * multiclass_accuracy(SCORES, LABELS, num_classes=7, top_k=k, average="micro")
    assert topk_accuracy(SCORES, LABELS, k=k) == pytest.approx(expected.item(), rel=1e-5)


def test_k_is_clamped() -> None:
    assert topk_accuracy(SCORES, LABELS, k=50) == 100


def test_confusion_and_class_accuracy() -> None:
    matrix = confusion_matrix(SCORES.argmax(1), LABELS, num_classes=7)
    torch.testing.assert_close(matrix, multiclass_confusion_matrix(SCORES, LABELS, num_classes=7))
    expected = 100 * multiclass_accuracy(SCORES, LABELS, num_classes=7, average="macro")
    assert mean_known(class_accuracy(matrix)) == pytest.approx(expected.item(), rel=1e-5)


def test_a_class_without_videos_does_not_count() -> None:
    matrix = confusion_matrix(torch.tensor([0, 1]), torch.tensor([0, 0]), num_classes=3)
    accuracy = class_accuracy(matrix)
    assert accuracy[0] == 50
    assert accuracy[1:].isnan().all()
    assert mean_known(accuracy) == 50


@pytest.mark.parametrize("steps", [3, 1000])
def test_average_precision(steps: int) -> None:
    """With few steps most scores are equal."""
    scores = (SCORES * steps).round() / steps
    labels = torch.rand(60, 7, generator=torch.Generator().manual_seed(2)) < 0.3
    labels[:, 4] = True
    expected = 100 * multilabel_average_precision(scores, labels.long(), num_labels=7, average=None)
    torch.testing.assert_close(average_precision(scores, labels).float(), expected)


def test_average_precision_of_a_class_that_nothing_has() -> None:
    labels = torch.zeros(60, 7, dtype=torch.bool)
    labels[3, 2] = True
    precision = average_precision(SCORES, labels)
    assert precision.isnan().tolist() == [True, True, False, True, True, True, True]
    rank = (SCORES[:, 2] >= SCORES[3, 2]).sum().item()
    assert mean_known(precision) == pytest.approx(100 / rank)


def test_among_takes_one_label_or_several() -> None:
    classes = torch.tensor([[[0, 1], [2, 0]], [[1, 2], [0, 2]]])
    assert among(classes, torch.tensor([1, 1])).tolist() == [[True, False], [True, False]]
    several = torch.tensor([[False, False, True], [False, False, False]])
    assert among(classes, several).tolist() == [[False, True], [False, False]]


def test_nothing_is_not_a_number() -> None:
    assert math.isnan(percent(torch.zeros(0, dtype=torch.bool)))
