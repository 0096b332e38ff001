"""The training loss, summed over heads: cross-entropy, or a binary one per class where videos may have several."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def clip_loss(
    logits: Tensor | tuple[Tensor, ...], targets: Tensor, *, label_smoothing: float = 0.0, multi_label: bool = False
) -> Tensor:
    """The mean loss of a batch, float32 `()`; with the logits of several heads, the sum of their losses.

    Args:
        logits: `(B, num_classes)`, or a tuple of such, one per head.
        targets: Class numbers, int64 `(B,)`, or the share of each class, float `(B, num_classes)`.
        label_smoothing: Share of the target that is spread over the classes; with `multi_label`, over yes and no.
        multi_label: Treat each class as a yes-or-no question of its own, with a sigmoid.

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
