"""The device to run on, and its share of the cores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def pick_device(device: torch.device | str | None = None) -> torch.device:
    """The named device; None takes the GPU if there is one, else the CPU.

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
    except (RuntimeError, AssertionError) as error:  # the latter from PyTorch without CUDA
        raise ValueError(f"device {str(device)!r} cannot be used here: {str(error).splitlines()[0]}") from error


def autocast(device: torch.device | str, precision: str) -> torch.autocast:
    """Autocast to "bf16" or "fp16"; for "fp32", a context that changes nothing."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(torch.device(device).type, dtype, enabled=precision != "fp32")


@contextmanager
def spare_cores(device: torch.device, *, workers: int) -> Iterator[None]:
    """While training on a CPU, leave a core to each process that decodes: more threads than cores slow each other down.

    A number of threads set by the user (OMP_NUM_THREADS) is kept.
    """
    threads = torch.get_num_threads()
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, threads - workers))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
