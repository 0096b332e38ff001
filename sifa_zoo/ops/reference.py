"""The operators in plain PyTorch: the arithmetic that every kernel must reproduce.

Inter-frame attention:

frames are handled as rows of pixels `(pairs * H * W, C)`, channels last, so that a sample is a row and a bilinear tap
four of them. Per pair of frames, with query q in frame t, tap samples s_k of frame t+1, and gradient g of the result:

    a_k = <q, s_k> / C      out = sum_k a_k s_k
    b_k = <g, s_k> / C      dq  = sum_k b_k s_k      ds_k = a_k g + b_k q

where ds_k goes back to the four corners of tap k and, through the slopes of their weights, to its offset.

Motion saliency, with frame f, the frame before p, s = sigmoid(f - p), and gradient g of the result:

    out = f + f s      df = g + g s + g f s (1 - s)      dp = -g f s (1 - s)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class _Corner(NamedTuple):
    """One corner of a bilinear tap, for every location of the frame pairs."""

    pixel: Tensor  # (locations,) number of the corner's row of channels
    weight: Tensor  # (locations, 1) bilinear weight, zero outside the frame
    row_slope: Tensor  # (locations,) derivative of the weight by the row
    column_slope: Tensor  # (locations,) and by the column


def forward(x: Tensor, offset: Tensor, kernel_size: int, dilation: int, residual: bool) -> Tensor:
    """The result of `inter_frame_attention`; arguments as there, offsets without those of frame 0."""
    query, value, taps = _rows(x, offset)
    attended = query.clone() if residual else torch.zeros_like(query)
    for corners in _corners(x, taps, kernel_size, dilation):
        sample = _sample(value, corners)
        attended += (query * sample).mean(1, keepdim=True) * sample
    frames, last = _frames(attended, x), x[:, :, -1:]
    last = last if residual else torch.zeros_like(last)
    if is_graph():  # some exporters have no assignment to slices, or lose it
        return torch.cat([frames.to(x.dtype), last], 2)
    out = torch.empty_like(x)
    out[:, :, :-1], out[:, :, -1:] = frames, last
    return out


def is_graph() -> bool:
    """Whether a graph of PyTorch's own operators is being recorded, for other programs to run."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def backward(
    grad: Tensor, x: Tensor, offset: Tensor, kernel_size: int, dilation: int, residual: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of `forward` for `x` and `offset`.

    Where a position is an integer, the slope is that of the bilinear cell that starts there.
    """
    query, value, taps = _rows(x, offset)
    upstream = _to_rows(grad[:, :, :-1], query.dtype)
    grad_query, grad_value = upstream.clone() if residual else torch.zeros_like(query), torch.zeros_like(value)
    grad_taps = torch.zeros_like(taps)
    for k, corners in enumerate(_corners(x, taps, kernel_size, dilation)):
        sample = _sample(value, corners)
        a = (query * sample).mean(1, keepdim=True)
        b = (upstream * sample).mean(1, keepdim=True)
        grad_query += b * sample
        grad_sample = a * upstream + b * query
        for corner in corners:
            grad_value.index_add_(0, corner.pixel, corner.weight * grad_sample)
            along = (grad_sample * value[corner.pixel]).sum(1)
            grad_taps[:, 2 * k] += corner.row_slope * along
            grad_taps[:, 2 * k + 1] += corner.column_slope * along

    grad_x = torch.zeros_like(x)
    grad_x[:, :, :-1] = _frames(grad_query, x)
    if residual:
        grad_x[:, :, -1:] = grad[:, :, -1:]
    grad_x[:, :, 1:] += _frames(grad_value, x)
    return grad_x, torch.empty_like(offset).copy_(_frames(grad_taps, x))


def saliency(clip: Tensor, dtype: torch.dtype) -> Tensor:
    """The result of `motion_saliency` in `dtype`."""
    frame, previous = clip[:, :, 1:], clip[:, :, :-1]
    raised = torch.addcmul(frame, frame, torch.sub(frame, previous).sigmoid_())
    return torch.empty_like(frame, dtype=dtype).copy_(raised)


def saliency_backward(grad: Tensor, clip: Tensor) -> Tensor:
    """The gradient of `saliency` for the clip."""
    frame, previous = clip[:, :, 1:], clip[:, :, :-1]
    grad, s = grad.to(clip.dtype), (frame - previous).sigmoid()
    slope = grad * frame * s * (1 - s)
    grad_clip = torch.zeros_like(clip)
    grad_clip[:, :, 1:] = grad + grad * s + slope
    grad_clip[:, :, :-1] -= slope
    return grad_clip


def add_context(frames: Tensor, context: Tensor, shortcut: Tensor) -> Tensor:
    """The result of `add_context`."""
    batch = context.shape[0]
    sizes = batch, frames.shape[0] // max(1, batch)
    clips, others = (x.unflatten(0, sizes) for x in (frames, shortcut))  # (B, T, C, H, W)
    return (clips + context[:, None, :, None, None] + others).relu().to(frames.dtype).flatten(0, 1)


def _rows(x: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query (frame t), value and offsets (frame t+1) of all T-1 pairs as rows, in the dtype to accumulate in."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return _to_rows(x[:, :, :-1], dtype), _to_rows(x[:, :, 1:], dtype), _to_rows(offset, dtype)


def _to_rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype).permute(0, 2, 3, 4, 1).reshape(-1, x.shape[1])  # (N * (T-1) * H * W, C)


def _frames(rows: Tensor, x: Tensor) -> Tensor:
    n, _, t, h, w = x.shape
    return rows.view(n, t - 1, h, w, rows.shape[1]).permute(0, 4, 1, 2, 3)  # (N, C, T-1, H, W)


def _sample(value: Tensor, corners: tuple[_Corner, ...]) -> Tensor:
    sample = value[corners[0].pixel] * corners[0].weight
    for corner in corners[1:]:
        sample.addcmul_(value[corner.pixel], corner.weight)
    return sample


def _corners(x: Tensor, taps: Tensor, kernel_size: int, dilation: int) -> Iterator[tuple[_Corner, ...]]:
    """The four corners of each tap, tap by tap."""
    n, _, t, h, w = x.shape
    pair, row, column = (torch.arange(size, device=x.device) for size in (n * (t - 1), h, w))
    grid = torch.broadcast_tensors(pair[:, None, None] * (h * w), row[:, None], column)  # no remainders, for ONNX
    frame_start, row, column = (numbers.flatten() for numbers in grid)
    pad = (dilation * (kernel_size - 1) + 1) // 2
    for k in range(kernel_size**2):
        y = row + (k // kernel_size * dilation - pad) + taps[:, 2 * k]
        x_ = column + (k % kernel_size * dilation - pad) + taps[:, 2 * k + 1]
        inside = (y > -1) & (y < h) & (x_ > -1) & (x_ < w)  # false for NaN too
        y, x_ = torch.where(inside, y, 0), torch.where(inside, x_, 0)
        top, left = y.floor(), x_.floor()
        down, right = y - top, x_ - left
        yield tuple(
            _corner(
                (top.long() + i, left.long() + j),
                (1 - down, down)[i],
                (1 - right, right)[j],
                sign=(2 * i - 1, 2 * j - 1),
                size=(h, w),
                frame_start=frame_start,
                inside=inside,
            )
            for i in (0, 1)
            for j in (0, 1)
        )


def _corner(position, row_weight, column_weight, *, sign, size, frame_start, inside) -> _Corner:
    (y, x), (h, w) = position, size
    valid = (inside & (y >= 0) & (y < h) & (x >= 0) & (x < w)).to(row_weight.dtype)
    return _Corner(
        pixel=frame_start + y.clamp(0, h - 1) * w + x.clamp(0, w - 1),
        weight=(valid * row_weight * column_weight).unsqueeze(1),
        row_slope=valid * sign[0] * column_weight,
        column_slope=valid * sign[1] * row_weight,
    )
