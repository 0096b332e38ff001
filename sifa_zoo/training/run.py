"""A run while it trains: its epochs, what is saved when, and how it ends."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sifa_zoo.config import TrainConfig
from sifa_zoo.datasets.formats.read import is_pattern
from sifa_zoo.datasets.mixing import BatchMixer
from sifa_zoo.datasets.shard_list import ShardList
from sifa_zoo.datasets.videos import DataError, VideoList, few
from sifa_zoo.evaluation.evaluate import evaluate, videos_of
from sifa_zoo.evaluation.scores import ScoreError
from sifa_zoo.files import BEST
from sifa_zoo.runtime.processes import all_sum, gather, is_writer, on_writer, rank, say
from sifa_zoo.training.epoch import Position, TrainingError, train_epoch
from sifa_zoo.training.learner import Learner
from sifa_zoo.training.log import EpochRow
from sifa_zoo.training.run_config import RunConfig
from sifa_zoo.training.run_folder import best_by, best_row, put_back, save_epoch, save_state, saved_state
from sifa_zoo.training.sharding import gathered, share_buffers
from sifa_zoo.training.stopping import Interrupted, StopSignals
from sifa_zoo.training.trackers import LogScalars
from sifa_zoo.video.load import VideoError

_METRICS = ("loss", "top1", "top5", "map")  # the figures of an evaluation that the log keeps


def is_over(rows: Sequence[EpochRow], train: TrainConfig) -> bool:
    """Whether all epochs are done, or as many as patience allows since the best one."""
    stale = len(rows) - best_row(rows)["epoch"] if rows else 0
    return len(rows) == train.epochs or 0 < train.patience <= stale


class LostDataError(DataError):
    """The videos could no longer be read during a run."""

    exit_code = 1


@dataclass
class Training:
    """A run in this process while it trains."""

    run: Path
    config: RunConfig
    learner: Learner
    loaders: tuple[DataLoader, DataLoader]
    rows: list[EpochRow]
    position: Position
    stop: StopSignals
    left_out: Sequence[str] = ()  # a line for each bad video found before training
    num_left_out: int = 0  # training videos among them, which count as skipped in each epoch
    log: LogScalars = lambda _scalars, _step: None
    saved_at: float = field(default_factory=time.monotonic)

    def run_epochs(self) -> None:
        """Train the epochs that the log does not have yet; save each when it ends."""
        train, (loader, _) = self.config.train, self.loaders
        mixer = BatchMixer(train, num_classes=len(self._videos.class_names), seed=train.seed)
        while not on_writer(is_over, self.rows, train):
            start, position = time.monotonic(), self.position
            if not position.step:  # each process draws its own numbers, the same in a resumed run
                torch.manual_seed(random.Random(f"{train.seed} {position.epoch} {rank()}").getrandbits(63))
            try:
                train_epoch(self.learner, loader, position=position, mixer=mixer, after_update=self._after_update)
                self._end_epoch(start)
            except (VideoError, RuntimeError) as error:
                if plainer := self._in_one_line(error):
                    raise LostDataError(plainer) from error
                raise

    def finish(self) -> EpochRow:
        """Print how the run ended; returns the row of the best epoch."""
        train, best = self.config.train, best_row(self.rows)
        if len(self.rows) < train.epochs:
            say(f"stopped after epoch {len(self.rows)}: none of the last {train.patience} was better than those before")
        bad = sum(gather(self.position.bad), Counter[str]())
        if self.left_out:
            say(f"left out from the start: {len(self.left_out)} videos: {few(sorted(self.left_out))}")
        if bad:
            say(f"skipped {bad.total()} times, {len(bad)} videos: {few(sorted(bad))}")
        name = {"val_top1": "top-1", "val_map": "mAP"}[best_by(best)]
        say(f"best: {name} {best[best_by(best)]:.1f} % after epoch {best['epoch']}; weights in {self.run / BEST}")
        return best

    def save_epoch(self) -> None:
        """Save all that belongs to the last epoch in the log."""
        save_epoch(
            self.run,
            self.learner,
            rows=self.rows,
            position=self.position,
            config=self.config,
            class_names=self._videos.class_names,
        )
        self.saved_at = time.monotonic()

    @property
    def _videos(self) -> VideoList | ShardList:
        return videos_of(self.loaders[0])

    def _save_state(self) -> None:
        save_state(self.run, self.learner, rows=self.rows, position=self.position)
        self.saved_at = time.monotonic()

    def _after_update(self, scalars: dict[str, float]) -> None:
        """Log an update, save if that is due, and end the run if a signal asks for it."""
        train, updates, position = self.config.train, self.learner.updates, self.position
        self.log({f"train/{name}": value for name, value in scalars.items()}, updates)
        if scalars.get("skipped") and (lost := self._lost()):
            raise LostDataError(lost)
        late = is_writer() and 0 < train.save_minutes <= (time.monotonic() - self.saved_at) / 60
        stopping, due = all_sum(self.stop.received is not None, late)
        if stopping or due or (train.save_every and updates % train.save_every == 0):
            self._save_state()
        if stopping:
            in_epoch = -(-position.step // train.accumulation_steps)
            say(f"update {in_epoch} of epoch {position.epoch + 1} is saved in {self.run}")
            raise Interrupted(self.stop.received or signal.SIGTERM)

    def _end_epoch(self, start: float) -> None:
        """Validate and save the epoch that has just been trained."""
        train, position, learner = self.config.train, self.position, self.learner
        if not position.clips:
            raise LostDataError(
                f"not one clip of epoch {position.epoch + 1} could be used; see the videos skipped above"
            )
        row = {"lr": position.lr, "train_loss": position.loss / position.clips}
        row |= {"skipped": position.skipped + self.num_left_out} if train.skip_bad else {}
        result = self._validate()
        if is_writer():  # every process has the lines of all
            position.bad.update(result["failed"])
        if result["failed"] and not (train.skip_bad and result["videos"] and not self._lost()):
            raise VideoError(result["failed"][0])
        row |= {f"val_{name}": result[name] for name in (*_METRICS, "videos", "expected") if name in result}
        self.rows.append({"epoch": position.epoch + 1, **row})
        self.position = Position(epoch=position.epoch + 1, bad=position.bad)
        self.save_epoch()
        self.log({name.replace("val_", "val/"): row[name] for name in row if name.startswith("val_")}, learner.updates)
        values = ", ".join(f"{name} {value:.4g}" for name, value in row.items())
        say(f"epoch {len(self.rows)}/{train.epochs}: {values} ({time.monotonic() - start:.0f} s)")
        if result["videos"] < result["expected"]:
            say(f"validation is INCOMPLETE: {result['videos']} of {result['expected']} videos")

    def _validate(self) -> dict[str, Any]:
        """Evaluate the model; as the state is saved first, a signal ends this before the next batch.

        Raises:
            TrainingError: If the model's scores are not finite; the saved state is then as it was before.
        """
        learner, (_, loader) = self.learner, self.loaders
        before = saved_state(self.run)
        self._save_state()
        share_buffers(learner.evaluated)
        model = _Interruptible(learner.evaluated, self.stop)
        try:
            with gathered(learner.model):
                return evaluate(
                    model,
                    loader,
                    device=learner.device,
                    precision=learner.train.precision,
                    max_clips=learner.train.batch_size,
                )
        except ScoreError as error:
            put_back(self.run, before)
            raise TrainingError(
                f"validation after epoch {self.position.epoch + 1}: {error}; lower the learning rate; what was saved "
                "before is untouched"
            ) from error

    def _in_one_line(self, error: VideoError | RuntimeError) -> str | None:
        """What has happened, if the error itself does not say it plainly."""
        if "DataLoader worker" in str(error):
            return "a process that decodes videos was killed, perhaps out of memory; --resume with fewer --workers"
        return self._lost() if isinstance(error, VideoError) else None

    def _lost(self) -> str | None:
        """The message that the data, or the folder of all videos of a list, is gone; None if it is not."""
        lists = [videos for videos in map(videos_of, self.loaders) if isinstance(videos, VideoList)]
        folders = [
            os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in videos.paths]) for videos in lists
        ]
        data = () if is_pattern(self.config.data) else (self.config.data,)
        gone = [place for place in (*data, *folders) if place and not os.path.exists(place)]
        return f"{gone[0]} is gone: bring it back and continue with --resume" if gone else None


class _Interruptible(nn.Module):
    """A model that checks for a signal before each batch; a hook would cause another compilation."""

    def __init__(self, model: nn.Module, stop: StopSignals) -> None:
        super().__init__()
        self.model = model
        self.pretrained_cfg = getattr(model, "pretrained_cfg", {})
        self.stop = stop

    def forward(self, clips: Tensor) -> Tensor:
        self.stop.check()
        return self.model(clips)
