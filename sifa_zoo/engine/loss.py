"""The training loss: cross-entropy, or a binary one per class where videos may have several, summed over heads."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def clip_loss(
    logits: Tensor | tuple[Tensor, ...], targets: Tensor, *, label_smoothing: float = 0.0, multi_label: bool = False
) -> Tensor:
    """The mean loss of a batch, float32 `()`; a model that returns the logits of several heads gets the sum of theirs.

    Args:
        logits: `(B, num_classes)`, or several of them.
        targets: Classes, int64 `(B,)`, or shares of the classes, float `(B, num_classes)`.
        label_smoothing: Share of the target that is spread over the classes; with `multi_label`, over yes and no.
        multi_label: Each class is a question of its own, answered by a sigmoid.

    Example:
        >>> clip_loss(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.6931)
    """
    heads = logits if isinstance(logits, tuple) else (logits,)
    if multi_label:
        targets = targets * (1 - label_smoothing) + label_smoothing / 2
        losses = [F.binary_cross_entropy_with_logits(head.float(), targets) for head in heads]
    else:
        losses = [F.cross_entropy(head.float(), targets, label_smoothing=label_smoothing) for head in heads]
    return torch.stack(losses).sum()
