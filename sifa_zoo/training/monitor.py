"""What a run shows while it trains: the progress bar, the time it waits for data, and curves in TensorBoard or W&B.

Both packages are optional. `log.csv` and `curve.png` need neither.
"""

from __future__ import annotations

import importlib
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from torch import nn
from tqdm import tqdm

from sifa_zoo.ops import SLOW, why_plain
from sifa_zoo.runtime.processes import say

T = TypeVar("T")
LogScalars: TypeAlias = Callable[[Mapping[str, float], int], None]

_MODULES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}
TRACKERS = tuple(_MODULES)
TENSORBOARD, WANDB_ID = "tensorboard", "wandb_id.txt"


def progress_bar(epoch: int, *, epochs: int, clips: int, done: int = 0, show: bool = True) -> tqdm:
    """A bar over the clips of an epoch (from 1), `done` of them before a resume; tqdm adds rate and time left."""
    title = f"epoch {epoch}/{epochs}"
    return tqdm(total=clips, initial=done, desc=title, unit="clip", dynamic_ncols=True, disable=not show)


def show_update(bar: tqdm, *, clips: int, loss: float, lr: float, data_wait: float) -> None:
    """Advance the bar by an update of `clips`; show the mean loss so far, the learning rate, the share of waiting."""
    bar.set_postfix_str(f"loss {loss:.3f}, lr {lr:.1e}, waiting for data {data_wait:.0%}", refresh=False)
    bar.update(clips)


def say_if_slow(model: nn.Module, device: torch.device) -> None:
    """Say in several lines if the model's operators run in plain PyTorch on this device, which nobody asked for."""
    if not any(getattr(module, "backend", None) == "auto" for module in model.modules()):
        return
    if reason := why_plain(device.type):
        way_out = "`sifa-zoo doctor` says what there is; `sifa-zoo build-ops` compiles the kernels"
        say(f"\n!! On {device.type}, {SLOW}:\n!! {reason}\n!! {way_out}\n")


class DataClock:
    """Measures how long a loop waits for its batches.

    Args:
        clock: A monotonic clock in seconds.

    Example:
        >>> clock = DataClock()
        >>> for batch in clock.watch([1, 2]):
        ...     pass
        >>> rates = clock.lap(clips=4)
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._lap_start = self._start = clock()
        self._lap_wait = self._wait = 0.0

    def watch(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches; the time until each arrives counts as waiting."""
        iterator = iter(batches)
        while True:
            asked = self._clock()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                self._lap_wait += self._clock() - asked
            yield batch

    def lap(self, *, clips: int) -> dict[str, float]:
        """`clips_per_second` and `data_wait` (a share in [0, 1]) since the last lap, for the `clips` in between."""
        now = self._clock()
        seconds = max(now - self._lap_start, 1e-9)
        rates = {"clips_per_second": clips / seconds, "data_wait": self._lap_wait / seconds}
        self._wait += self._lap_wait
        self._lap_start, self._lap_wait = now, 0.0
        return rates

    @property
    def data_wait(self) -> float:
        """Share of the time spent waiting, over all laps."""
        return self._wait / max(self._lap_start - self._start, 1e-9)


def check_trackers(names: Sequence[str]) -> None:
    """Refuse, before a run begins, trackers that it could not log to.

    Raises:
        ValueError: If a name is not one of `TRACKERS`, or its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"log must be some of {', '.join(TRACKERS)}, got {name!r}")
        try:
            importlib.import_module(_MODULES[name])
        except ImportError as error:
            raise ValueError(f"logging to {name} needs a package that is not installed: pip install {name}") from error


@contextmanager
def open_trackers(
    names: Sequence[str], run: Path, *, settings: Mapping[str, Any], update: int = 0
) -> Iterator[LogScalars]:
    """A function that logs scalars, `log({"train/loss": 0.7}, update)`, to all of `names`, if any.

    Args:
        names: Some of `TRACKERS`.
        run: The run folder. TensorBoard's files go to `tensorboard` in it, those of W&B to `wandb`.
        settings: The run's settings, for W&B's table of runs.
        update: The update from which a resumed run continues; what a killed run logged after it is dropped.
    """
    openers = {"tensorboard": _open_tensorboard, "wandb": _open_wandb}
    with ExitStack() as stack:
        logs = [stack.enter_context(openers[name](run, settings, update)) for name in names]

        def log(scalars: Mapping[str, float], update: int) -> None:
            for one in logs:
                one(scalars, update)

        yield log


@contextmanager
def _open_tensorboard(run: Path, _settings: Mapping[str, Any], update: int) -> Iterator[LogScalars]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(os.fspath(run / TENSORBOARD), purge_step=update or None) as writer:

        def log(scalars: Mapping[str, float], update: int) -> None:
            for name, value in scalars.items():
                writer.add_scalar(name, value, update)

        yield log


@contextmanager
def _open_wandb(run: Path, settings: Mapping[str, Any], _update: int) -> Iterator[LogScalars]:
    import wandb

    file = run / WANDB_ID  # W&B forgets which run belongs to a folder when the run ends
    if not file.exists():
        file.write_text(uuid.uuid4().hex, encoding="utf-8")
    writer = wandb.init(
        project="sifa_zoo",
        name=run.resolve().name,
        config={key: str(value) for key, value in settings.items()},
        id=file.read_text(encoding="utf-8").strip(),
        resume="allow",
        dir=os.fspath(run),
    )
    with writer:
        yield lambda scalars, update: writer.log(dict(scalars), step=update)
