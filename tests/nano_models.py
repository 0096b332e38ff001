"""Models at a small size, the same each time, and clips for them."""

import torch

import sifa_zoo

ALL = sifa_zoo.list_models()
NANO = [name for name in ALL if "nano" in name]
SIZE = 64


def build(name, **kwargs):
    torch.manual_seed(0)
    return sifa_zoo.create_model(name, **{"num_classes": 5, "img_size": SIZE, **kwargs})


def clip(batch=1, num_frames=8, size=SIZE):
    return torch.randn(batch, 3, num_frames, size, size, generator=torch.Generator().manual_seed(1))
