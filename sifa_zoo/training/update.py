"""One update of the weights, and its figures, which are read when the device has come to them.

To read a number from a GPU means to wait until it has done all that it was given, and then it has nothing to do until
it is given more. So the figures of an update are read after the next one has been handed over.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from sifa_zoo.runtime.batches import Batch
from sifa_zoo.runtime.devices import HostCopy
from sifa_zoo.runtime.processes import all_sum, world_size
from sifa_zoo.training.learner import Learner
from sifa_zoo.training.monitor import DataClock


class TrainingError(ValueError):
    """Training cannot go on: the loss or a gradient is no longer a finite number."""

    exit_code = 1


@dataclass
class Share:
    """What this process has done for an update: names and failures of its batches, summed loss and number of clips."""

    names: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    loss: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    clips: int = 0

    def add(self, batch: Batch) -> None:
        """Note a batch that was read."""
        self.names += batch.names
        self.failed += batch.failed

    def trained(self, loss: Tensor, clips: int) -> None:
        """Note the mean loss of a batch that was trained on; it stays on its device."""
        total = loss.detach().double() * clips
        self.loss = self.loss + total if self.clips else total
        self.clips += clips


@dataclass(frozen=True)
class Figures:
    """What an update did: sums over all processes, and scalars for the log."""

    number: int
    planned: int  # clips, had all been good
    loss: float
    clips: int
    skipped: int
    scalars: dict[str, float]


@dataclass(frozen=True)
class Update:
    """An update that the device has been given; its figures may not be there yet."""

    number: int
    planned: int
    epoch: int
    names: list[str]
    numbers: HostCopy  # the summed loss of this process and the norm of the gradient
    clips: int  # of all processes, as the next ones
    skipped: int
    may_overflow: bool
    scalars: dict[str, float]

    def read(self) -> Figures:
        """Wait for the figures.

        Raises:
            TrainingError: If the loss or the gradient is not finite; the message names the videos.
        """
        loss, norm = self.numbers.read()
        self._refuse_infinite(loss, "loss")
        if not self.may_overflow:
            self._refuse_infinite(norm, "norm of the gradient")
        (loss,) = all_sum(loss)
        mean = loss / self.clips if self.clips else math.nan
        scalars = {"loss": mean, "lr": self.scalars["lr"], "grad_norm": norm} | self.scalars
        return Figures(self.number, self.planned, loss, self.clips, self.skipped, scalars)

    def _refuse_infinite(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"the {what} is {value} in epoch {self.epoch}, with the videos {', '.join(self.names)}; "
                "check these, or lower the learning rate; what was saved before is untouched"
            )


class Unread:
    """Holds the last update until its figures are read: when the next one comes, or at once where they are needed.

    Args:
        take: Called with the figures of each update, in order.
    """

    def __init__(self, take: Callable[[Figures], None]) -> None:
        self._take = take
        self._update: Update | None = None

    def add(self, update: Update) -> None:
        """Read the update before this one."""
        self.read()
        self._update = update

    def read(self) -> None:
        """Read what has not been read; raises what `Update.read` does."""
        update, self._update = self._update, None
        if update is not None:
            self._take(update.read())


def make_update(learner: Learner, share: Share, *, planned: int, epoch: int, clock: DataClock) -> Update:
    """Make the update to which all processes contribute, each `planned` clips if all are good."""
    lr, norm = learner.lr, torch.zeros((), device=share.loss.device)
    clips, skipped = (int(total) for total in all_sum(share.clips, len(share.failed)))
    if clips:
        # Makes it the gradient of the mean over clips, even where batches were short or left out.
        norm = learner.gradient_norm(scale=planned * world_size() / clips)
    may_overflow = not clips or learner.overflow_is_usual
    learner.update(empty=not clips)
    numbers = HostCopy(torch.stack([share.loss.to(norm.device), norm.double()]))
    scalars = {"lr": lr, **({"skipped": float(skipped)} if learner.train.skip_bad else {}), **clock.lap(clips=clips)}
    total = planned * world_size()
    return Update(learner.updates, total, epoch, share.names, numbers, clips, skipped, may_overflow, scalars)


def say_skipped(failed: list[str], seen: dict[str, int]) -> None:
    """Count the videos that could not be decoded, and print the first failure of each."""
    for line in failed:
        if line not in seen:
            tqdm.write(f"skipped: {line}", file=sys.stderr)
        seen[line] += 1
