"""The SIFA block: motion saliency, predicted offsets, inter-frame attention.

Source: SIFA, CVPR 2022 (https://arxiv.org/abs/2206.06931), section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sifa_zoo.ops import inter_frame_attention, motion_saliency

OFFSETS = ("learned", "zero", "none")  # of a model; with "none" it has no such block


def check_offsets(offsets: str) -> None:
    """Raise ValueError unless a model can be built with such offsets."""
    if offsets not in OFFSETS:
        raise ValueError(f"offsets must be one of {OFFSETS}, got {offsets!r}")


def fold(clip: Tensor) -> Tensor:
    """A clip `(B, C, T, H, W)` as frames `(B*T, C, H, W)`, all T of a clip in a row; a view of `unfold`'s result."""
    return clip.transpose(1, 2).flatten(0, 1)


def unfold(frames: Tensor, like: Tensor) -> Tensor:
    """Frames `(B*T, C, H, W)` as a clip `(B, C, T, H, W)` with the B and T of another; a view."""
    return frames.unflatten(0, (like.shape[0], like.shape[2])).transpose(1, 2)


class OffsetConv(nn.Conv2d):
    """The convolution that predicts offsets: 3x3 for every K."""

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__(dim, 2 * kernel_size**2, 3, padding=1, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Saliency `(B, C, H, W)` to offsets `(B, 2*K*K, H, W)` in pixels."""
        if not input.is_cuda or input.dtype not in (torch.float16, torch.bfloat16):
            return super().forward(input)
        # Tensor cores take channels by eights, and K = 3 has 18.
        weight = F.pad(self.weight.to(input.dtype), (0, 0, 0, 0, 0, 0, 0, -self.out_channels % 8))
        return self._conv_forward(input, weight, None)[:, : self.out_channels]


class SIFA(nn.Module):
    """Stand-alone inter-frame attention with offsets predicted from motion saliency.

    Args:
        dim: Channels C.
        kernel_size: K, taps per row and column.
        dilation: Distance between neighbouring taps, in pixels.
        offsets: "learned", or "zero" for a regular grid without the convolution that predicts them.

    Raises:
        ValueError: If a value is out of range.
    """

    def __init__(self, dim: int, kernel_size: int = 3, dilation: int = 1, *, offsets: str = "learned") -> None:
        super().__init__()
        if not all(isinstance(size, int) and size >= 1 for size in (kernel_size, dilation)):
            raise ValueError(
                f"kernel_size and dilation must be ints of at least 1, got {kernel_size = }, {dilation = }"
            )
        if offsets not in ("learned", "zero"):
            raise ValueError(f"offsets must be 'learned' or 'zero', got {offsets!r}")
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.backend = "auto"
        self.conv_offset = OffsetConv(dim, kernel_size) if offsets == "learned" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with a regular grid."""
        if self.conv_offset is not None:
            nn.init.zeros_(self.conv_offset.weight)

    def forward(self, clip: Tensor, *, residual: bool = False) -> Tensor:
        """Features `(B, C, T, H, W)` to attended features like them, zero in the last frame.

        With `residual`, the features are added. The kernels read `channels_last_3d` memory without a copy.
        """
        sizes = {"kernel_size": self.kernel_size, "dilation": self.dilation}
        return inter_frame_attention(clip, self._offset(clip), **sizes, residual=residual, backend=self.backend)

    def _offset(self, clip: Tensor) -> Tensor:
        """Offsets `(B, 2*K*K, T-1, H, W)` in pixels, of all frames but the first."""
        batch, _, num_steps, height, width = clip.shape
        if self.conv_offset is None:
            return clip.new_zeros(batch, 2 * self.kernel_size**2, num_steps - 1, height, width)
        saliency = fold(motion_saliency(clip, backend=self.backend))  # (B*(T-1), C, H, W)
        return self.conv_offset(saliency).unflatten(0, (batch, num_steps - 1)).transpose(1, 2)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, dilation={self.dilation}"
