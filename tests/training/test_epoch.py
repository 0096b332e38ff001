from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from sifa_zoo.training.epoch import clip_loss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]])


def test_classes():
    labels = torch.tensor([0, 2])
    torch.testing.assert_close(clip_loss(LOGITS, labels), F.cross_entropy(LOGITS, labels))
    one_hot = F.one_hot(labels, 3).float()
    for smoothing in (0.0, 0.1):
        by_label = clip_loss(LOGITS, labels, label_smoothing=smoothing)
        torch.testing.assert_close(clip_loss(LOGITS, one_hot, label_smoothing=smoothing), by_label)


def test_shares_of_classes():
    targets = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5]])
    expected = -(targets * LOGITS.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(clip_loss(LOGITS, targets), expected)


def test_heads_add_up():
    labels = torch.tensor([0, 2])
    torch.testing.assert_close(
        clip_loss((LOGITS, -LOGITS), labels), clip_loss(LOGITS, labels) + clip_loss(-LOGITS, labels)
    )


def test_several_labels_are_questions_of_their_own():
    targets = torch.tensor([[1.0, 0, 1], [0, 0, 0]])
    loss = clip_loss(LOGITS, targets, multi_label=True)
    chances = LOGITS.sigmoid()
    torch.testing.assert_close(loss, -torch.where(targets > 0, chances, 1 - chances).log().mean())
    smooth = clip_loss(LOGITS * 1e3, targets, label_smoothing=0.2, multi_label=True)
    assert smooth > 0.1 * 1e3 * 0.5  # a tenth of the target lies on the other side
    assert clip_loss(torch.zeros(1, 3), targets[:1], label_smoothing=0.2, multi_label=True) == pytest.approx(
        math.log(2)
    )


def test_half_precision_logits_are_raised():
    assert clip_loss(LOGITS.bfloat16(), torch.tensor([0, 2])).dtype == torch.float32
