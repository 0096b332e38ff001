"""The device to run on, and its share of the cores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from sifa_zoo.config import usable_cores


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


def usual_precision(device: torch.device | str) -> str:
    """ "bf16" on a GPU that computes it itself, else "fp32": what "auto" means.

    Example:
        >>> usual_precision("cpu")
        'fp32'
    """
    is_gpu = torch.device(device).type == "cuda"
    return "bf16" if is_gpu and torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"


def usual_workers(device: torch.device | str) -> int:
    """Processes that decode videos for a process that computes on this device, if nobody names a number.

    On a CPU, where they take cores from the model, a quarter of them and at least two; beside a GPU all, up to 16.
    Processes of one machine under `torchrun` share its cores.
    """
    cores = max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return min(cores, 16 if torch.device(device).type == "cuda" else max(2, cores // 4))


def autocast(device: torch.device | str, precision: str) -> torch.autocast:
    """Autocast to "bf16" or "fp16"; for "fp32", a context that changes nothing; "auto" is as `usual_precision`."""
    precision = usual_precision(device) if precision == "auto" else precision
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(torch.device(device).type, dtype, enabled=precision != "fp32")


@contextmanager
def fp32_products(device: torch.device, *, tf32: bool) -> Iterator[None]:
    """Meanwhile, round matrix products and convolutions in fp32 on a GPU to TF32, or let none be rounded."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@contextmanager
def spare_cores(device: torch.device, *, workers: int | None) -> Iterator[None]:
    """While training on a CPU, leave a core to each process that decodes: more threads than cores slow each other down.

    A number of threads set by the user (OMP_NUM_THREADS) is kept.
    """
    threads = torch.get_num_threads()
    workers = usual_workers(device) if workers is None else workers
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, threads - workers))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class HostCopy:
    """Numbers on their way from a device; to read them waits for the work that makes them, and for nothing later.

    Args:
        numbers: A tensor that nothing changes any more.
    """

    def __init__(self, numbers: Tensor) -> None:
        self._numbers = numbers.to("cpu", non_blocking=True)  # into pinned memory
        self._arrived: torch.cuda.Event | None = None
        if numbers.is_cuda:
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(numbers.device))

    def read(self) -> list[float]:
        """The numbers, on the host."""
        if self._arrived is not None:
            self._arrived.synchronize()
        numbers: list[float] = self._numbers.tolist()
        return numbers
