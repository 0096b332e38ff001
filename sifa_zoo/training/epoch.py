"""One pass over the training clips, from wherever the last one stopped."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from sifa_zoo.config import TrainConfig
from sifa_zoo.datasets.mixing import BatchMixer
from sifa_zoo.runtime.batches import Batch
from sifa_zoo.runtime.processes import all_sum, is_writer, world_size
from sifa_zoo.runtime.shard_batches import ShardStream
from sifa_zoo.training.freezing import train_mode
from sifa_zoo.training.learner import Learner
from sifa_zoo.training.loss import clip_loss
from sifa_zoo.training.progress import DataClock, progress_bar, show_update
from sifa_zoo.video.load import VideoError


class TrainingError(ValueError):
    """Training cannot go on: the loss or a gradient is no longer a finite number."""

    exit_code = 1


@dataclass
class Position:
    """How far a run has come: epochs done, steps done in the current one, and its sums so far, for the log.

    `loss`, `clips` and `skipped` are over all processes; `step` and `bad` (how often each video was skipped in this
    run) are this process's own.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    clips: int = 0
    skipped: int = 0
    lr: float = 0.0
    bad: Counter[str] = field(default_factory=Counter)


def num_updates(loader: DataLoader, train: TrainConfig) -> int:
    """Updates per epoch."""
    return -(-len(loader) // train.accumulation_steps)


def train_epoch(
    learner: Learner,
    loader: DataLoader,
    *,
    position: Position,
    mixer: BatchMixer,
    after_update: Callable[[dict[str, float]], None],
) -> None:
    """Train from `position` to the end of its epoch.

    Args:
        learner: The model.
        loader: Of a `ClipSampler` with a seed, or of shards.
        position: Where to begin; it advances with each update, so that after an exception it says how far training got.
        mixer: MixUp and CutMix.
        after_update: Called with the scalars of each update, once all that it changes is up to date.

    Raises:
        TrainingError: If the loss or the gradient is not finite; the message names the videos.
        VideoError: If a video cannot be decoded, unless bad videos are skipped.
    """
    train, steps, epoch = learner.train, len(loader), position.epoch
    own_clips = min(_begin(loader, position, batch_size=train.batch_size), steps * train.batch_size)
    train_mode(learner.model)
    clock, group = DataClock(), _Group()
    per_step = train.batch_size * world_size()
    total, done = own_clips * world_size(), position.step * per_step
    with progress_bar(epoch + 1, epochs=train.epochs, clips=total, done=done, show=is_writer()) as bar:
        for step, batch in enumerate(clock.watch(loader), start=position.step):
            first = step - step % train.accumulation_steps
            size = min(train.accumulation_steps, steps - first)  # of this group; the last one may be smaller
            last = step + 1 == first + size
            group.add(batch)
            group.planned = size * train.batch_size
            if _is_usable(batch, train):
                loss, clips = _loss(learner, batch, mixer=mixer, place=(epoch, step)), len(batch.labels)
                _refuse_infinite(loss, "loss", group=group, epoch=epoch)
                learner.backward(loss * (train.loss_weight * clips / group.planned), last=last)
                group.trained(loss.item(), clips)
            if last:
                scalars = _update(learner, group, position=position, clock=clock)
                position.step = step + 1
                shown, mean_loss = per_step * group.batches, position.loss / max(1, position.clips)
                show_update(bar, clips=shown, loss=mean_loss, lr=position.lr, data_wait=clock.data_wait)
                group = _Group()
                after_update(scalars)


def _begin(loader: DataLoader, position: Position, *, batch_size: int) -> int:
    """Start the next pass at a position; returns this process's clips in the whole epoch."""
    data: Any = loader.dataset
    if isinstance(data, ShardStream):
        data.set_epoch(position.epoch, start=position.step)
        return len(data)
    sampler: Any = loader.sampler
    data.dataset.set_epoch(position.epoch)
    sampler.set_epoch(position.epoch, start=min(position.step * batch_size, len(sampler)))
    return len(sampler)


class _Group:
    """This process's batches of one update; `planned` is their number of clips if all are full and decodable."""

    def __init__(self) -> None:
        self.planned = 0
        self.names: list[str] = []
        self.failed: list[str] = []
        self.loss = 0.0
        self.clips = 0
        self.batches = 0

    def add(self, batch: Batch) -> None:
        self.names += batch.names
        self.failed += batch.failed
        self.batches += 1

    def trained(self, loss: float, clips: int) -> None:
        self.loss += loss * clips
        self.clips += clips


def _update(learner: Learner, group: _Group, *, position: Position, clock: DataClock) -> dict[str, float]:
    """Make the update that ends a group; returns its scalars for the log."""
    lr, norm = learner.lr, torch.zeros(())
    loss, clips, skipped = all_sum(group.loss, group.clips, len(group.failed))
    if clips:
        # Makes it the gradient of the mean over clips, even where batches were short or left out.
        norm = learner.gradient_norm(scale=group.planned * world_size() / clips)
        if not learner.overflow_is_usual:
            _refuse_infinite(norm, "norm of the gradient", group=group, epoch=position.epoch)
    learner.update(empty=not clips)
    for line in group.failed:
        if line not in position.bad:
            tqdm.write(f"skipped: {line}", file=sys.stderr)
        position.bad[line] += 1
    position.loss, position.clips = position.loss + loss, position.clips + int(clips)
    position.skipped, position.lr = position.skipped + int(skipped), lr
    figures = {"loss": loss / clips if clips else float("nan"), "lr": lr, "grad_norm": norm.item()}
    if learner.train.skip_bad:
        figures["skipped"] = skipped
    return {**figures, **clock.lap(clips=int(clips))}


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


def _loss(learner: Learner, batch: Batch, *, mixer: BatchMixer, place: tuple[int, int]) -> Tensor:
    """The loss of a batch; its place (epoch, step) in the run decides how it is mixed."""
    device = learner.device
    clips, labels = batch.clips.to(device, non_blocking=True), batch.labels.to(device, non_blocking=True)
    clips, targets = mixer(clips, labels, epoch=place[0], step=place[1])
    return clip_loss(
        learner.logits(clips),
        targets,
        label_smoothing=learner.train.label_smoothing,
        multi_label=batch.labels.ndim == 2,
    )


def _refuse_infinite(value: Tensor, what: str, *, group: _Group, epoch: int) -> None:
    if not torch.isfinite(value):
        raise TrainingError(
            f"the {what} is {value.item()} in epoch {epoch + 1}, with the videos {', '.join(group.names)}; "
            "check these, or lower the learning rate; what was saved before is untouched"
        )
