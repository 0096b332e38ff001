"""What `torch.utils.flop_counter.FlopCounterMode` counts for inter-frame attention.

Importing this file registers the formulas. `sifa_zoo` imports it once PyTorch's counter is there, which takes a tenth
of a second to import.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from sifa_zoo.ops import functional  # which defines the operators

__all__ = ["attention", "attention_backward"]

assert functional


@register_flop_formula(torch.ops.sifa.inter_frame_attention)
def attention(x: Sequence[int], offset: Sequence[int], kernel_size: int, *rest: Any, **outputs: Any) -> int:
    """Two per multiply-add, of which each tap at each location of T-1 frames has 2C.

    They are its weight <query, sample>, and its share of the weighted sum of samples. As PyTorch counts
    multiplications of matrices only, neither the interpolation of samples is counted, nor the residual. The kernels do
    less than the formula says where taps share pixels.

    Args:
        x: Shape of the features, `(N, C, T, H, W)`.
        offset: Shape of the offsets.
        kernel_size: K, taps per row and column.
        rest: Other arguments of the operator, which do not count.
        outputs: The shape of the result.
    """
    return 2 * 2 * _channels_of_taps(x, kernel_size)


@register_flop_formula(torch.ops.sifa.inter_frame_attention_backward)
def attention_backward(
    grad: Sequence[int], x: Sequence[int], offset: Sequence[int], kernel_size: int, *rest: Any, **outputs: Any
) -> int:
    """As `attention`, with 5C per tap: a = <q, s> anew, b = <g, s>, b s for the query's gradient, a g + b q for s's."""
    return 2 * 5 * _channels_of_taps(x, kernel_size)


def _channels_of_taps(x: Sequence[int], kernel_size: int) -> int:
    n, c, t, h, w = x
    return n * c * (t - 1) * h * w * kernel_size**2
