"""What PyTorch's counter counts, against a count by hand."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sifa_zoo.ops import flops, inter_frame_attention


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_flops_of_attention(kernel_size):
    n, c, t, h, w = shape = 2, 4, 3, 5, 6
    x, offset = torch.randn(shape, requires_grad=True), torch.zeros(n, 2 * kernel_size**2, t, h, w)
    with FlopCounterMode(display=False) as counter:
        out = inter_frame_attention(x, offset, kernel_size=kernel_size)
        forward = counter.get_total_flops()
        out.sum().backward()
    taps = n * (t - 1) * h * w * kernel_size**2
    assert forward == taps * (2 * c + 2 * c)  # a product with the query, and a share of the sum
    assert counter.get_total_flops() - forward == taps * 5 * 2 * c
    operators = {operator.__name__ for operator in counter.get_flop_counts()["Global"]}
    assert operators == {"inter_frame_attention", "inter_frame_attention_backward"}


def test_one_frame_has_no_next():
    assert flops.attention((2, 4, 1, 5, 6), (2, 18, 0, 5, 6), 3, 1, False) == 0
