"""From decoded frames to model input: torchvision's v2 transforms, drawn once per clip, so the same for all frames."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms import v2

from sifa_zoo.config import ClipConfig


def train_transform(clip: ClipConfig, *, crop_scale: float = 0.5, hflip: bool = True) -> v2.Transform:
    """Random resized crop and flip. Randomness comes from torch's global generator.

    Args:
        clip: Size, mean and deviation of the model's input.
        crop_scale: Smallest share of the frame that a crop keeps, in (0, 1].
        hflip: Mirror half of the clips.

    Returns:
        A transform from uint8 `(T, C, H, W)` to float32 `(C, T, img_size, img_size)`, normalised.

    Raises:
        ValueError: If `crop_scale` is out of range.

    Example:
        >>> train_transform(ClipConfig(img_size=64))(torch.zeros(8, 3, 90, 120, dtype=torch.uint8)).shape
        torch.Size([3, 8, 64, 64])
    """
    if not 0 < crop_scale <= 1:
        raise ValueError(f"crop_scale must be in (0, 1], got {crop_scale = }")
    crop = v2.RandomResizedCrop(clip.img_size, scale=(crop_scale, 1.0), antialias=True)
    flip = [v2.RandomHorizontalFlip()] if hflip else []
    return v2.Compose([crop, *flip, *_to_input(clip)])


def eval_transform(clip: ClipConfig) -> v2.Transform:
    """Short side to `clip.short_side` (frames that have it already pass untouched), then the centre crop.

    Returns:
        A transform from uint8 `(T, C, H, W)` to float32 `(C, T, img_size, img_size)`, normalised.

    Example:
        >>> eval_transform(ClipConfig(img_size=64))(torch.zeros(8, 3, 90, 120, dtype=torch.uint8)).shape
        torch.Size([3, 8, 64, 64])
    """
    resize = v2.Resize(clip.short_side, antialias=True)
    return v2.Compose([resize, v2.CenterCrop(clip.img_size), *_to_input(clip)])


def _to_input(clip: ClipConfig) -> list[v2.Transform]:
    scale = v2.ToDtype(torch.float32, scale=True)
    return [scale, v2.Normalize(mean=list(clip.mean), std=list(clip.std)), v2.Lambda(_channels_first)]


def _channels_first(frames: Tensor) -> Tensor:
    return frames.transpose(0, 1).contiguous()  # (C, T, H, W)
