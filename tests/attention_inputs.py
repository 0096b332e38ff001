"""Inputs of inter-frame attention, in every layout, and its results with gradients."""

import torch

from sifa_zoo.ops import inter_frame_attention

LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last_3d": lambda x: x.to(memory_format=torch.channels_last_3d),
    "permuted": lambda x: x.permute(0, 2, 1, 4, 3).contiguous().permute(0, 2, 1, 4, 3),
    "sliced": lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
    "expanded": lambda x: x[:1].expand(x.shape) if x.shape[0] else x,
}


def draw(shape, kernel_size=3, scale=1.5, dtype=torch.float64, device="cpu"):
    generator = torch.Generator().manual_seed(sum(shape) + kernel_size)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    n, _, t, h, w = shape
    offset = scale * torch.randn(n, 2 * kernel_size**2, t, h, w, generator=generator, dtype=torch.float64)
    return x.to(device, dtype), offset.to(device, dtype)


def with_gradients(x, offset, grad, **options):
    """The result and both gradients, in float64 on the CPU."""
    x, offset = x.detach().requires_grad_(), offset.detach().requires_grad_()
    out = inter_frame_attention(x, offset, **options)
    results = (out, *torch.autograd.grad(out, (x, offset), grad.to(out)))
    return [result.detach().cpu().double() for result in results]
