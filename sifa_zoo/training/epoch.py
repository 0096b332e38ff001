"""One pass over the training clips: batch, device, mixing, forward, loss, backward, update."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from timm.scheduler.scheduler import Scheduler
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from sifa_zoo.config import TrainConfig
from sifa_zoo.datasets.mixing import BatchMixer
from sifa_zoo.runtime.batches import Batch, ClipLoader
from sifa_zoo.runtime.processes import all_sum, is_writer, world_size
from sifa_zoo.training.freezing import train_mode
from sifa_zoo.training.learner import Learner
from sifa_zoo.training.monitor import DataClock, progress_bar, show_update
from sifa_zoo.video.load import VideoError

EpochRow: TypeAlias = dict[str, Any]  # column of the log -> value


class TrainingError(ValueError):
    """Training cannot go on: the loss or a gradient is no longer a finite number."""

    exit_code = 1


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
    after_update: Callable[[dict[str, float]], None],
) -> None:
    """Train from `position` to the end of its epoch.

    Args:
        learner: The model.
        loader: Of training clips.
        position: Where to begin; it advances with each update, so that after an exception it says how far training got.
        mixer: MixUp and CutMix.
        scheduler: Of the learning rate, by updates.
        after_update: Called with the scalars of each update, once all that it changes is up to date.

    Raises:
        TrainingError: If the loss or the gradient is not finite; the message names the videos.
        VideoError: If a video cannot be decoded, unless bad videos are skipped.
    """
    train, device, steps = learner.train, learner.device, len(loader)
    loader.set_epoch(position.epoch, start=position.step)
    num_clips = min(loader.num_clips, steps * train.batch_size)
    train_mode(learner.model)
    clock, share = DataClock(), _Share()
    per_step = train.batch_size * world_size()
    total, done = num_clips * world_size(), position.step * per_step
    with progress_bar(position.epoch + 1, epochs=train.epochs, clips=total, done=done, show=is_writer()) as bar:
        for step, batch in enumerate(clock.watch(loader), start=position.step):
            first = step - step % train.accumulation_steps
            num_batches = min(train.accumulation_steps, steps - first)  # of this update; the last may have fewer
            is_last, planned = step + 1 == first + num_batches, num_batches * train.batch_size
            share.add(batch)
            if _is_usable(batch, train):
                clips, labels = batch.clips.to(device, non_blocking=True), batch.labels.to(device, non_blocking=True)
                clips, targets = mixer(clips, labels, epoch=position.epoch, step=step)
                logits = learner.logits(clips)
                loss = clip_loss(logits, targets, label_smoothing=train.label_smoothing, multi_label=labels.ndim == 2)
                _refuse_infinite(loss, "loss", share, position)
                learner.backward(loss * (train.loss_weight * len(labels) / planned), last=is_last)
                share.trained(loss.item(), len(labels))
            if is_last:
                scalars = _update(learner, share, planned=planned, position=position, clock=clock)
                scheduler.step_update(learner.updates)
                position.step, share = step + 1, _Share()
                shown, mean_loss = per_step * num_batches, position.loss / max(1, position.clips)
                show_update(bar, clips=shown, loss=mean_loss, lr=position.lr, data_wait=clock.data_wait)
                after_update(scalars)


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


@dataclass
class _Share:
    """What this process has done for an update: names and failures of its batches, summed loss and number of clips."""

    names: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    loss: float = 0.0
    clips: int = 0

    def add(self, batch: Batch) -> None:
        self.names += batch.names
        self.failed += batch.failed

    def trained(self, loss: float, clips: int) -> None:
        self.loss += loss * clips
        self.clips += clips


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


def _update(learner: Learner, share: _Share, *, planned: int, position: Position, clock: DataClock) -> dict[str, float]:
    """Make the update to which all processes contribute, each `planned` clips if all are good; returns its scalars."""
    lr, norm = learner.lr, torch.zeros(())
    loss, clips, skipped = all_sum(share.loss, share.clips, len(share.failed))
    if clips:
        # Makes it the gradient of the mean over clips, even where batches were short or left out.
        norm = learner.gradient_norm(scale=planned * world_size() / clips)
        if not learner.overflow_is_usual:
            _refuse_infinite(norm, "norm of the gradient", share, position)
    learner.update(empty=not clips)
    for line in share.failed:
        if line not in position.bad:
            tqdm.write(f"skipped: {line}", file=sys.stderr)
        position.bad[line] += 1
    position.loss, position.clips = position.loss + loss, position.clips + int(clips)
    position.skipped, position.lr = position.skipped + int(skipped), lr
    figures = {"loss": loss / clips if clips else float("nan"), "lr": lr, "grad_norm": norm.item()}
    if learner.train.skip_bad:
        figures["skipped"] = skipped
    return {**figures, **clock.lap(clips=int(clips))}


def _refuse_infinite(value: Tensor, what: str, share: _Share, position: Position) -> None:
    if not torch.isfinite(value):
        raise TrainingError(
            f"the {what} is {value.item()} in epoch {position.epoch + 1}, with the videos {', '.join(share.names)}; "
            "check these, or lower the learning rate; what was saved before is untouched"
        )
