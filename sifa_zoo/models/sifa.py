"""The SIFA block: motion saliency, predicted offsets, inter-frame attention.

Source: SIFA, CVPR 2022 (https://arxiv.org/abs/2206.06931), section 3.2. Time is folded into the batch: frames
`(B*T, C, H, W)`, all T of a clip in a row, in channels_last memory.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sifa_zoo.ops import inter_frame_attention

OFFSETS = ("learned", "zero", "none")  # of a model; with "none" it has no such block


def check_offsets(offsets: str) -> None:
    """Raise ValueError unless a model can be built with such offsets."""
    if offsets not in OFFSETS:
        raise ValueError(f"offsets must be one of {OFFSETS}, got {offsets!r}")


def motion_saliency(clip: Tensor) -> Tensor:
    """Features raised where they grew since the previous frame: `f * (1 + sigmoid(f - f_prev))`.

    `(B, C, T, H, W)` to `(B, C, T-1, H, W)`: of frames 1 to T-1, since nothing precedes frame 0.

    The published code shifts a tensor onto itself for `f_prev`, which copies frame 0 everywhere or races.
    """
    frame, previous = clip[:, :, 1:], clip[:, :, :-1]
    return torch.addcmul(frame, frame, torch.sub(frame, previous).sigmoid_())


class SIFA(nn.Module):
    """Stand-alone inter-frame attention with offsets predicted from motion saliency.

    Args:
        dim: Channels C.
        kernel_size: K, taps per row and column.
        dilation: Distance between neighbouring taps, in pixels.
        offsets: "learned", or "zero" for a regular grid without the convolution that predicts them.

    The convolution that predicts the offsets is 3x3 for every K, and starts at zero: a regular grid.

    Raises:
        ValueError: If a value is out of range.
    """

    def __init__(self, dim: int, kernel_size: int = 3, dilation: int = 1, *, offsets: str = "learned") -> None:
        super().__init__()
        if kernel_size < 1 or dilation < 1:
            raise ValueError(f"kernel_size and dilation must be at least 1, got {kernel_size = }, {dilation = }")
        if offsets not in ("learned", "zero"):
            raise ValueError(f"offsets must be 'learned' or 'zero', got {offsets!r}")
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.backend = "auto"
        learned = offsets == "learned"
        self.conv_offset = nn.Conv2d(dim, 2 * kernel_size**2, 3, padding=1, bias=False) if learned else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with a regular grid."""
        if self.conv_offset is not None:
            nn.init.zeros_(self.conv_offset.weight)

    def forward(self, frames: Tensor, num_steps: int) -> Tensor:
        """Frames `(B*T, C, H, W)` with T = `num_steps` to attended features like them, zero in the last frame."""
        clip = frames.unflatten(0, (-1, num_steps)).transpose(1, 2)  # (B, C, T, H, W), a view
        attended = inter_frame_attention(
            clip, self._offset(clip), kernel_size=self.kernel_size, dilation=self.dilation, backend=self.backend
        )
        return attended.transpose(1, 2).flatten(0, 1)

    def _offset(self, clip: Tensor) -> Tensor:
        """Offsets `(B, 2*K*K, T, H, W)` in pixels; those of frame 0 are not used."""
        batch, _, num_steps, height, width = clip.shape
        if self.conv_offset is None:
            return clip.new_zeros(batch, 2 * self.kernel_size**2, num_steps, height, width)
        saliency = motion_saliency(clip).transpose(1, 2).flatten(0, 1)  # (B*(T-1), C, H, W)
        offset = self.conv_offset(saliency).unflatten(0, (batch, num_steps - 1)).transpose(1, 2)
        return F.pad(offset, (0, 0, 0, 0, 1, 0))

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, dilation={self.dilation}"
