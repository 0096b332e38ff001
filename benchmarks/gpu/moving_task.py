"""A task without files that a small model learns in some hundred steps: which way a bar moves, left or right."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import sifa_zoo

SIZE, FRAMES, CLASSES = 32, 8, 2


def clips(step: int, batch: int, device: str) -> tuple[Tensor, Tensor]:
    """The batch of a step: clips `(B, 3, T, H, W)` of a bright bar over noise, and which way it moves."""
    generator = torch.Generator().manual_seed(step)
    label = torch.arange(batch) % CLASSES
    start = torch.randint(SIZE, (batch, 1), generator=generator)
    place = (start + 3 * (2 * label[:, None] - 1) * torch.arange(FRAMES)) % SIZE  # (B, T)
    bar = (torch.arange(SIZE) - place[..., None]) % SIZE < 6  # (B, T, W)
    clip = 0.2 * torch.randn(batch, 3, FRAMES, SIZE, SIZE, generator=generator)
    return (clip + bar[:, None, :, None].float()).to(device), label.to(device)


def model_of(name: str, device: str) -> nn.Module:
    torch.manual_seed(0)
    kwargs = {"num_classes": CLASSES, "img_size": SIZE, "num_frames": FRAMES}
    return sifa_zoo.create_model(name, **kwargs).to(device)
