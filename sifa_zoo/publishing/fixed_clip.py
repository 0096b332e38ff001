"""The fixed clip and a model's logits for it, stored with weights to check that they still load correctly."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

STORED_LOGITS = 8


def fixed_clip(model: Any) -> Tensor:
    """The clip `(1, C, T, H, W)`, of the model's input size, that stored logits are computed from.

    Its standard normal numbers come from `numpy.random.RandomState(0)`, so they are the same on every machine.
    """
    shape = (1, model.in_chans, model.num_frames, *model.img_size)
    return torch.from_numpy(np.random.RandomState(0).standard_normal(shape).astype(np.float32))


@torch.inference_mode()
def first_logits(model: Any) -> list[float]:
    """The model's first eight logits for the fixed clip, in eval mode."""
    was_training = model.training
    model.eval()
    logits = model(fixed_clip(model).to(next(model.parameters()).device))[0, :STORED_LOGITS].tolist()
    model.train(was_training)
    return logits
