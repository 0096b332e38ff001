"""SIFA behind a module of an image model that knows no time."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sifa_zoo.models.sifa import SIFA


class Layout(NamedTuple):
    """How frames lie in what a module returns.

    `channels` is the dimension of the channels: 1 of `(N, C, H, W)`, 3 of `(N, H, W, C)`, 2 of tokens
    `(N, prefix + H*W, C)`, which start with `prefix` tokens that are no patches and have `grid` = (H, W).
    """

    channels: int
    grid: tuple[int, int]
    prefix: int = 0

    @property
    def tokens(self) -> bool:
        """Whether the frames' height and width can only be known from the grid."""
        return self.channels == 2

    @classmethod
    def of(cls, shape: tuple[int, ...], dim: int, grid: tuple[int, int], prefix: int) -> Layout | None:
        """The layout of a tensor of this shape with `dim` channels; None if it is no such layout."""
        if len(shape) == 4 and dim in (shape[1], shape[3]):
            channels = 1 if shape[1] == dim else 3
            return cls(channels, shape[2:] if channels == 1 else shape[1:3])
        return cls(2, grid, prefix) if shape[1:] == (prefix + grid[0] * grid[1], dim) else None


class GatedSIFA(nn.Module):
    """`x + gate * SIFA(norm(x))`; the gate starts at zero, so the image model starts as it is.

    SIFA is cubic in what it gets, hence the norm: features of trunks differ by orders of magnitude. The image model
    calls its modules with frames, `(B*T, ...)`, so how many time steps a clip has is a setting, as the size of the
    frames is for trunks with windows or position tables.

    Args:
        dim: Channels C.
        kernel_size: K, taps per row and column.
        dilation: Distance between neighbouring taps, in cells of the feature map.
        offsets: "learned", or "zero" for a regular grid.
    """

    layout: Layout | None = None  # of what the module returns; None lets it pass
    num_steps: int

    def __init__(self, dim: int, kernel_size: int, dilation: int, *, offsets: str = "learned") -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.sifa = SIFA(dim, kernel_size, dilation, offsets=offsets)
        self.gate = nn.Parameter(torch.zeros(dim))

    def reset_parameters(self) -> None:
        """Start as the identity."""
        self.norm.reset_parameters()
        self.sifa.reset_parameters()
        nn.init.zeros_(self.gate)

    def follow(self, module: nn.Module, args: Any, output: Any) -> Any:
        """The forward hook of the module that this one is behind."""
        return output if self.layout is None else self(output)

    def forward(self, x: Tensor) -> Tensor:
        """Frames in the layout of the trunk to the same."""
        assert self.layout is not None  # a model sets it
        channels, grid, prefix = self.layout
        tokens = x[:, prefix:] if prefix else x
        frames = {1: lambda: x.permute(0, 2, 3, 1), 2: lambda: tokens.unflatten(1, grid), 3: lambda: x}[channels]()
        clip = self.norm(frames.unflatten(0, (-1, self.num_steps))).permute(0, 4, 1, 2, 3)  # (B, C, T, H, W)
        added = self.gate * self.sifa(clip).permute(0, 2, 3, 4, 1).flatten(0, 1)  # (B*T, H, W, C)
        added = added.to(x.dtype)  # under autocast the trunk's maps stay as narrow as they are
        if channels == 1:
            added = added.permute(0, 3, 1, 2)
        elif channels == 2:
            added = added.flatten(1, 2)
        return torch.cat([x[:, :prefix], tokens + added], dim=1) if prefix else x + added
