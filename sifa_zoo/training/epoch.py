"""One pass over the training clips: batch, device, mixing, forward, loss, backward, update."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from timm.scheduler.scheduler import Scheduler
from torch import Tensor
from torch.nn import functional as F

from sifa_zoo.config import TrainConfig
from sifa_zoo.datasets.transforms import BatchMixer, normalize_clips
from sifa_zoo.runtime.batches import Batch, ClipLoader
from sifa_zoo.runtime.processes import all_sum, is_writer, world_size
from sifa_zoo.training.freezing import train_mode
from sifa_zoo.training.learner import Learner
from sifa_zoo.training.monitor import DataClock, progress_bar, show_update
from sifa_zoo.training.update import Figures, Share, Unread, make_update, say_skipped
from sifa_zoo.video.load import VideoError

EpochRow: TypeAlias = dict[str, Any]  # column of the log -> value


@dataclass
class Position:
    """How far a run has come: a row of the log for each epoch done, the steps done in this one, and its sums so far.

    `loss`, `clips` and `skipped` are over all processes; `bad` (how often each video was skipped in this run) is this
    process's own.
    """

    rows: list[EpochRow] = field(default_factory=list)
    step: int = 0
    loss: float = 0.0
    clips: int = 0
    skipped: int = 0
    lr: float = 0.0
    bad: Counter[str] = field(default_factory=Counter)

    @property
    def epoch(self) -> int:
        """Epochs done, which is the number of this one from 0."""
        return len(self.rows)

    @property
    def mean_loss(self) -> float:
        """Of the clips of this epoch so far."""
        return self.loss / max(1, self.clips)

    def add(self, figures: Figures) -> None:
        """Add the sums of an update."""
        self.loss += figures.loss
        self.clips += figures.clips
        self.skipped += figures.skipped
        self.lr = figures.scalars["lr"]

    def end_epoch(self, row: EpochRow) -> None:
        """Go to the start of the next epoch."""
        self.rows.append(row)
        self.step, self.loss, self.clips, self.skipped, self.lr = 0, 0.0, 0, 0, 0.0


def num_updates(loader: ClipLoader, train: TrainConfig) -> int:
    """Updates per epoch."""
    return -(-len(loader) // train.accumulation_steps)


def train_epoch(
    learner: Learner,
    loader: ClipLoader,
    *,
    position: Position,
    mixer: BatchMixer,
    scheduler: Scheduler,
    log: Callable[[dict[str, float], int], None],
    after_update: Callable[[Callable[[], None]], None],
) -> None:
    """Train from `position` to the end of its epoch.

    Args:
        learner: The model.
        loader: Of training clips.
        position: Where to begin; it advances with each update, and its sums when the update's figures are there.
        mixer: MixUp and CutMix.
        scheduler: Of the learning rate, by updates.
        log: Called with the scalars of each update and its number, once they are there.
        after_update: Called after each update with a function that brings the sums in `position` up to date.

    Raises:
        TrainingError: If the loss or the gradient is not finite; the message names the videos.
        VideoError: If a video cannot be decoded, unless bad videos are skipped.
    """
    train, device, steps = learner.train, learner.device, len(loader)
    loader.set_epoch(position.epoch, start=position.step)
    num_clips = min(loader.num_clips, steps * train.batch_size)
    train_mode(learner.model)
    clock, share = DataClock(), Share()
    per_step = train.batch_size * world_size()
    total, done = num_clips * world_size(), position.step * per_step
    with progress_bar(position.epoch + 1, epochs=train.epochs, clips=total, done=done, show=is_writer()) as bar:

        def take(figures: Figures) -> None:
            position.add(figures)
            show_update(bar, clips=figures.planned, loss=position.mean_loss, lr=position.lr, data_wait=clock.data_wait)
            log(figures.scalars, figures.number)

        unread = Unread(take)
        for step, batch in enumerate(clock.watch(loader), start=position.step):
            first = step - step % train.accumulation_steps
            num_batches = min(train.accumulation_steps, steps - first)  # of this update; the last may have fewer
            is_last, planned = step + 1 == first + num_batches, num_batches * train.batch_size
            share.add(batch)
            if _is_usable(batch, train):
                clips, labels = batch.clips.to(device, non_blocking=True), batch.labels.to(device, non_blocking=True)
                clips = normalize_clips(clips, loader.clip)
                clips, targets = mixer(clips, labels, epoch=position.epoch, step=step)
                logits = learner.logits(clips)
                loss = clip_loss(logits, targets, label_smoothing=train.label_smoothing, multi_label=labels.ndim == 2)
                learner.backward(loss * (train.loss_weight * len(labels) / planned), last=is_last)
                share.trained(loss, len(labels))
            if is_last:
                say_skipped(share.failed, position.bad)
                unread.add(make_update(learner, share, planned=planned, epoch=position.epoch + 1, clock=clock))
                scheduler.step_update(learner.updates)
                position.step, share = step + 1, Share()
                after_update(unread.read)
        unread.read()


def clip_loss(
    logits: Tensor | tuple[Tensor, ...], targets: Tensor, *, label_smoothing: float = 0.0, multi_label: bool = False
) -> Tensor:
    """The mean loss of a batch, float32 `()`; with the logits of several heads, the sum of their losses.

    Args:
        logits: `(B, num_classes)`, or a tuple of such, one per head.
        targets: Class numbers, int64 `(B,)`, or the share of each class, float `(B, num_classes)`.
        label_smoothing: Share of the target that is spread over the classes; with `multi_label`, over yes and no.
        multi_label: Treat each class as a yes-or-no question of its own, with a sigmoid.

    Example:
        >>> clip_loss(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.6931)
    """
    heads = logits if isinstance(logits, tuple) else (logits,)
    if multi_label:
        targets = targets * (1 - label_smoothing) + label_smoothing / 2
        losses = [F.binary_cross_entropy_with_logits(head.float(), targets) for head in heads]
    else:
        losses = [F.cross_entropy(head.float(), targets, label_smoothing=label_smoothing) for head in heads]
    return torch.stack(losses).sum()


def _is_usable(batch: Batch, train: TrainConfig) -> bool:
    """Whether to train on a batch; all processes leave it out if bad videos leave one of them fewer than two clips.

    Batch norm may need two, and all processes must make the same steps.

    Raises:
        VideoError: If a video cannot be decoded, unless bad videos are skipped.
    """
    if not train.skip_bad:
        if batch.failed:
            raise VideoError(batch.failed[0])
        return True
    (short,) = all_sum(bool(batch.failed) and len(batch.labels) < min(2, train.batch_size))
    return not short
