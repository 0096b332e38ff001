"""The processes of one run under `torchrun`, and what they exchange besides gradients.

`torchrun` starts the processes and gives each its rank in environment variables; without these, a run has one process,
and every function here does the obvious thing. Rank 0 is the writer: it alone prints and writes the run folder.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from sifa_zoo.runtime.devices import pick_device

T = TypeVar("T")

_PATIENCE = timedelta(minutes=30)  # with other processes: reading a list or writing a checkpoint takes less
_GRACE_SECONDS = 1.0
_SIGNS_OF_A_LOST_PEER = ("gloo", "NCCL", "Connection closed", "Connection reset", "Timed out waiting")
_SIGNS_OF_A_TIMEOUT = ("timed out", "timeout")


class PeerError(ConnectionError):
    """Another process of the run has ended or does not answer."""


@contextmanager
def process_group(
    device: torch.device | str | None = None, *, timeout: timedelta = _PATIENCE
) -> Iterator[torch.device]:
    """Join the process group of `torchrun`, if there is one, and leave it at the end, whatever happens.

    Args:
        device: As for `pick_device`; with several GPUs, each process takes the one of its local rank.
        timeout: How long a process waits for another before it gives up.

    Yields:
        The device of this process.

    Raises:
        PeerError: If another process has ended, having reported why itself, or did not answer in time.
        ValueError: If the device cannot be used.

    Example:
        >>> with process_group("cpu") as device:
        ...     world_size()
        1
    """
    if "RANK" not in os.environ:
        yield pick_device(device)
        return
    device = _own_device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=timeout)
        yield device
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _SIGNS_OF_A_LOST_PEER):
            raise
        time.sleep(_GRACE_SECONDS)  # torchrun ends all at the first exit: let the other one print its message
        reason = "another process of the run has ended (see its message)"
        if any(sign in str(error).lower() for sign in _SIGNS_OF_A_TIMEOUT):
            reason += f" or has not answered for {timeout.total_seconds():g} s"
        raise PeerError(f"rank {os.environ['RANK']}: {reason}") from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_writer() -> bool:
    """Whether this process prints and writes the run folder."""
    return rank() == 0


def is_first_process() -> bool:
    """Whether `torchrun` made this process rank 0, or there is no other; valid outside `process_group`, too."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Print, on the writer."""
    if is_writer():
        print(text, flush=True)


def gather(value: T) -> list[T]:
    """The values of all processes, in order of rank, on every process; for small values, which are pickled."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def gather_rows(rows: Sequence[T]) -> list[T]:
    """The rows of all processes one after another, on every process."""
    return [row for own in gather(list(rows)) for row in own]


def broadcast(value: T) -> T:
    """The writer's value, on every process: for decisions, which must be the same everywhere."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def on_writer(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a function on the writer alone, and return its result on every process.

    If it fails, only the writer raises the error, so that it is reported once; the others get a `PeerError`.
    """
    return broadcast(function(*args, **kwargs) if is_writer() else None)  # type: ignore[return-value]


def all_sum(*values: float) -> list[float]:
    """The sums of numbers over all processes."""
    if not dist.is_initialized():
        return [float(value) for value in values]
    total = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(total)
    return total.tolist()


def _own_device(device: torch.device | str | None) -> torch.device:
    chosen = pick_device(device)
    if chosen.type != "cuda" or (device is not None and torch.device(device).index is not None):
        return chosen
    local_rank, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local_rank >= count:
        raise ValueError(f"process {local_rank} of this machine has no GPU: there are {count}; start {count} processes")
    return torch.device("cuda", local_rank)
