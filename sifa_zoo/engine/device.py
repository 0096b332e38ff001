"""The device to run on."""

from __future__ import annotations

import torch


def pick_device(device: torch.device | str | None = None) -> torch.device:
    """The device of that name; None takes the GPU where there is one, and else the CPU.

    Raises:
        ValueError: If the device does not exist or cannot be used here.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises the latter
        raise ValueError(f"device {str(device)!r} cannot be used here: {str(error).splitlines()[0]}") from error
