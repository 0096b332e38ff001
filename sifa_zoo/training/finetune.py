"""Fine-tuning on labelled videos: a run from its settings to its end, in the order in which things happen."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from timm.utils import distribute_bn
from torch import nn

from sifa_zoo.config import ClipConfig, ReadConfig, TrainConfig
from sifa_zoo.datasets.mirror import describe_mirroring
from sifa_zoo.datasets.transforms import BatchMixer
from sifa_zoo.datasets.videos import VideoList, few
from sifa_zoo.evaluation.charts import need_matplotlib
from sifa_zoo.evaluation.evaluate import eval_loader, evaluate
from sifa_zoo.evaluation.scores import ScoreError
from sifa_zoo.files import BEST, CONFIG, LAST, STATE
from sifa_zoo.registry.create import create_model
from sifa_zoo.runtime.batches import ClipLoader
from sifa_zoo.runtime.devices import fp32_products, spare_cores
from sifa_zoo.runtime.processes import all_sum, gather, is_writer, on_writer, process_group, rank, say, world_size
from sifa_zoo.training.distributed import gathered
from sifa_zoo.training.epoch import EpochRow, Position, num_updates, train_epoch
from sifa_zoo.training.learner import Learner, build_scheduler
from sifa_zoo.training.monitor import LogScalars, check_trackers, open_trackers, say_if_slow
from sifa_zoo.training.run_config import RunConfig, settle
from sifa_zoo.training.run_data import (
    LostDataError,
    Videos,
    check_files,
    leave_out,
    lost_data_in_one_line,
    read_data,
    refuse_lost,
    start_info,
    train_loader,
)
from sifa_zoo.training.run_folder import (
    best_by,
    best_row,
    compare_with_start,
    facts,
    is_of_epoch,
    is_over,
    open_run,
    put_back,
    restore,
    save_epoch,
    save_state,
    saved_state,
    write_config,
)
from sifa_zoo.training.stopping import Interrupted, Interruptible, StopSignals, stop_signals
from sifa_zoo.training.update import TrainingError
from sifa_zoo.video.load import VideoError
from sifa_zoo.weights.finding import locate_weights

_FIGURES = ("loss", "top1", "top5", "map", "videos", "expected")  # of an evaluation, for the log


def finetune(
    data: str | os.PathLike[str],
    *,
    output: str | os.PathLike[str],
    model: str | None = None,
    val: str | os.PathLike[str] | None = None,
    clip: ClipConfig | Mapping[str, Any] | None = None,
    train: TrainConfig | Mapping[str, Any] | None = None,
    recipe: str | None = None,
    model_args: dict[str, Any] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    pretrained: bool = False,
    resume: bool | Literal["auto"] = False,
    log: str | Sequence[str] = (),
    device: torch.device | str | None = None,
    reading: ReadConfig | Mapping[str, Any] | None = None,
) -> EpochRow:
    """Fine-tune a model on labelled videos and leave a run folder that evaluation and prediction can use.

    After each epoch it has `best.safetensors` (by top-1 over the validation videos, or by mean average precision if
    they may have several classes), `last.safetensors`, `log.csv`, `curve.png`, `config.json`, and `state.pt`, which
    resuming needs and `train` may have written more often. Under `torchrun`, all processes call this to train together.

    Args:
        data: A folder with class folders `train` and `val`, or lists `train.txt` and `val.txt` of `path label` lines;
            or a single list or class folder, if `val` is given.
        output: The run folder; new or empty, unless `resume`.
        model: The model's name, with a tag to start from those weights; None takes that of the checkpoint.
        val: Validation videos, where `data` has none: a list or class folder.
        clip: How clips are cut; a mapping names what differs from the settings of the checkpoint or the model.
        train: How to train; a mapping names what differs from the defaults.
        recipe: A name from `sifa_zoo.training.recipes`; its settings then are the defaults.
        model_args: Further arguments of the model's constructor.
        checkpoint: Weights to start from: a run folder, weights file, `hf-hub:owner/name` or `local-dir:PATH`; a head
            for other classes is re-initialised.
        pretrained: Start from the model's default weights.
        resume: Continue the run where it was last saved, with its settings; "auto" starts one if there is none.
        log: Where else to log: some of "tensorboard" and "wandb".
        device: None takes the GPU if there is one; under `torchrun`, each process takes its own.
        reading: How `data` is read; a mapping names what differs from the defaults.

    Returns:
        The best epoch's row of the log: `epoch`, `lr`, `train_loss`, `val_loss` and `val_top1`, `val_top5` or
        `val_map`, and how many validation videos they are over: `val_videos` of `val_expected`.

    Raises:
        ValueError: If a setting, the folder or the data (`DataError`) cannot be used; nothing has been trained then.
        TrainingError: If the loss is no longer finite; the message names the videos.
        Interrupted: After SIGINT or SIGTERM, once the update is done and saved.
        OSError: If the disk is full, or another process has ended (`PeerError`); what was saved last is still there.

    Example:
        >>> finetune("videos", model="sifa_net_r50", output="runs/mine")  # doctest: +SKIP
    """
    given: dict[str, Any] = {"data": data, "model": model, "val": val, "clip": clip, "train": train, "recipe": recipe}
    given |= {"model_args": model_args, "checkpoint": checkpoint, "pretrained": pretrained, "reading": reading}
    trackers = (log,) if isinstance(log, str) else log
    with process_group(device) as device, stop_signals() as stop:
        return _finetune(given, Path(output), resume=resume, trackers=trackers, device=device, stop=stop)


def _finetune(
    given: Mapping[str, Any],
    run: Path,
    *,
    resume: bool | Literal["auto"],
    trackers: Sequence[str],
    device: torch.device,
    stop: StopSignals,
) -> EpochRow:
    """A run; its settings and data are what the writer makes of them, on every process."""
    on_writer(check_trackers, trackers)
    on_writer(need_matplotlib)
    if resume == "auto":
        resume = on_writer((run / CONFIG).is_file)
    config = on_writer(settle, given, saved=on_writer(open_run, run, resume=resume), device=device)
    videos = on_writer(read_data, config, run=run)
    found = on_writer(facts, config, videos, device=device)
    left_out = on_writer(compare_with_start, run, found) if resume else {}
    train, class_names, settings = config.train, videos[0].class_names, {**config.flat(), **found}

    # Before the files are checked, which may take long: this refuses what does not suit the model.
    learner = Learner(build_model(config, class_names, run=run), train, device=device)
    position = restore(run, learner)
    if position.rows and not on_writer(is_of_epoch, run / LAST, position.epoch):  # killed between state and weights
        save_epoch(run, learner, position, config=config, class_names=class_names)
    if is_over(position.rows, train):
        return _already_finished(run, position.rows, train)
    _print_settings(settings, class_names, hflip=train.hflip)
    say_if_slow(learner.model, device)

    # A resumed run must keep its number of updates, so videos that have gone bad since fail when they are read.
    if not (resume and train.skip_bad):
        left_out = check_files(*videos, workers=train.workers, skip_bad=train.skip_bad)
    videos = leave_out(left_out, *videos)
    val_loader = eval_loader(videos[1], config.clip, train.evaluation, device=device)
    loaders = train_loader(config, videos[0], device=device), val_loader
    if not resume:
        on_writer(write_config, run, config, found, left_out=left_out)

    tracked = open_trackers(trackers if is_writer() else (), run, settings=settings, update=learner.updates)
    lost = lost_data_in_one_line(config.data, *videos)
    products = fp32_products(device, tf32=train.tf32)
    with spare_cores(device, workers=train.workers), products, tracked as log, stop.deferred(), lost:
        training = Training(run, config, learner, loaders, position, left_out, stop, log)
        training.run_epochs()
    return training.finish()


def build_model(config: RunConfig, class_names: tuple[str, ...], *, run: Path) -> nn.Module:
    """The model with the weights that training starts from; a resumed run loads its own over them."""
    fresh = not (run / STATE).exists()
    torch.manual_seed(config.train.seed)
    model = create_model(
        config.model if fresh else config.architecture,
        pretrained=config.pretrained and fresh,
        num_classes=len(class_names),
        num_frames=config.clip.num_frames,
        img_size=config.clip.img_size,
        checkpoint_path=locate_weights(config.checkpoint).path if config.checkpoint and fresh else None,
        **{"drop_rate": config.train.drop_rate, **config.model_args},
    )
    info = start_info(config, run)
    if info and info.class_names != class_names and len(info.class_names) == len(class_names):
        model.reset_classifier(len(class_names))  # type: ignore[operator]  # `create_model` renews only one of another size
        say(f"{config.checkpoint}: the head is re-initialised for classes of other names, all else is loaded")
    return model


def _already_finished(run: Path, rows: Sequence[EpochRow], train: TrainConfig) -> EpochRow:
    done, of = len(rows), train.epochs
    how_many = f"all {of} epochs are done" if done == of else f"it stopped early, after epoch {done}"
    say(f"{run} is finished: {how_many}, there is nothing to resume")
    return best_row(rows)


def _print_settings(settings: Mapping[str, Any], class_names: Sequence[str], *, hflip: bool) -> None:
    """Print every setting in effect, what follows from them, and what mirroring does."""
    for name, value in settings.items():
        say(f"  {name:22} {value}")
    for line in describe_mirroring(class_names) if hflip else ():
        say(f"  {line}")


@dataclass
class Training:
    """The run in this process while it trains."""

    run: Path
    config: RunConfig
    learner: Learner
    loaders: tuple[ClipLoader, ClipLoader]
    position: Position
    left_out: Mapping[str, str]  # path of each bad video found before training -> the line that says why
    stop: StopSignals
    log: LogScalars
    saved_at: float = field(default_factory=time.monotonic)

    def run_epochs(self) -> None:
        """Train, validate and save the epochs that the log does not have yet."""
        train, learner, position, loader = self.config.train, self.learner, self.position, self.loaders[0]
        mixer = BatchMixer(train, num_classes=len(self._videos[0].class_names), seed=train.seed)
        updates = num_updates(loader, train)
        scheduler = build_scheduler(learner.optimizer, train, updates_per_epoch=updates, num_replicas=world_size())
        scheduler.step_update(learner.updates)
        while not on_writer(is_over, position.rows, train):
            start = time.monotonic()
            if not position.step:  # each process draws its own numbers, the same in a resumed run
                torch.manual_seed(random.Random(f"{train.seed} {position.epoch} {rank()}").getrandbits(63))
            train_epoch(
                learner,
                loader,
                position=position,
                mixer=mixer,
                scheduler=scheduler,
                log=self._log_update,
                after_update=self._after_update,
            )
            self._end_epoch(start)

    def finish(self) -> EpochRow:
        """Print how the run ended; returns the row of the best epoch."""
        train, rows = self.config.train, self.position.rows
        if len(rows) < train.epochs:
            say(f"stopped after epoch {len(rows)}: none of the last {train.patience} was better than those before")
        if self.left_out:
            say(f"left out from the start: {len(self.left_out)} videos: {few(sorted(self.left_out.values()))}")
        if bad := sum(gather(self.position.bad), Counter[str]()):
            say(f"skipped {bad.total()} times, {len(bad)} videos: {few(sorted(bad))}")
        say_if_slow(self.learner.model, self.learner.device)
        best = best_row(rows)
        name = {"val_top1": "top-1", "val_map": "mAP"}[best_by(best)]
        say(f"best: {name} {best[best_by(best)]:.1f} % after epoch {best['epoch']}; weights in {self.run / BEST}")
        return best

    @property
    def _videos(self) -> tuple[Videos, Videos]:
        train, val = (loader.videos for loader in self.loaders)
        return train, val

    def _log_update(self, scalars: dict[str, float], number: int) -> None:
        self.log({f"train/{name}": value for name, value in scalars.items()}, number)
        if scalars.get("skipped"):
            refuse_lost(self.config.data, *self._videos)

    def _after_update(self, read_figures: Callable[[], None]) -> None:
        """Save if that is due, and end the run if a signal asks for it; nothing is saved before it is checked."""
        train, updates, position = self.config.train, self.learner.updates, self.position
        late = is_writer() and 0 < train.save_minutes <= (time.monotonic() - self.saved_at) / 60
        stopping, due = all_sum(self.stop.received is not None, late)
        if stopping or due or (train.save_every and updates % train.save_every == 0):
            read_figures()
            self._save_state()
        if stopping:
            in_epoch = -(-position.step // train.accumulation_steps)
            say(f"update {in_epoch} of epoch {position.epoch + 1} is saved in {self.run}")
            raise Interrupted(self.stop.received or signal.SIGTERM)

    def _end_epoch(self, start: float) -> None:
        """Validate and save the epoch that has just been trained."""
        train, position, videos = self.config.train, self.position, self._videos
        epoch = position.epoch + 1
        if not position.clips:
            raise LostDataError(f"not one clip of epoch {epoch} could be used; see the videos skipped above")
        row = {"epoch": epoch, "lr": position.lr, "train_loss": position.mean_loss}
        if train.skip_bad:
            missing = videos[0].missing if isinstance(videos[0], VideoList) else ()
            row["skipped"] = position.skipped + sum(path in self.left_out for path in missing)
        result = self._validate()
        if is_writer():  # every process has the lines of all
            position.bad.update(result["failed"])
        if result["failed"]:
            refuse_lost(self.config.data, *videos)
            if not (train.skip_bad and result["videos"]):
                raise VideoError(result["failed"][0])
        row |= {f"val_{name}": result[name] for name in _FIGURES if name in result}
        position.end_epoch(row)
        save_epoch(self.run, self.learner, position, config=self.config, class_names=videos[0].class_names)
        self.saved_at = time.monotonic()
        scalars = {name.replace("val_", "val/"): row[name] for name in row if name.startswith("val_")}
        self.log(scalars, self.learner.updates)
        values = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "epoch")
        say(f"epoch {epoch}/{train.epochs}: {values} ({time.monotonic() - start:.0f} s)")
        if result["videos"] < result["expected"]:
            say(f"validation is INCOMPLETE: {result['videos']} of {result['expected']} videos")

    def _validate(self) -> dict[str, Any]:
        """Evaluate the model; as the state is saved first, a signal ends this before the next batch.

        Raises:
            TrainingError: If the model's scores are not finite; the saved state is then as it was before.
        """
        train, learner = self.config.train, self.learner
        before = saved_state(self.run)
        self._save_state()
        if world_size() > 1:  # each has collected batch norm's running statistics from its own clips
            distribute_bn(learner.evaluated, world_size())
        try:
            with gathered(learner.model):
                return evaluate(
                    Interruptible(learner.evaluated, self.stop),
                    self.loaders[1],
                    device=learner.device,
                    precision=train.precision,
                    max_clips=train.batch_size,
                )
        except ScoreError as error:
            put_back(self.run, before)
            raise TrainingError(
                f"validation after epoch {self.position.epoch + 1}: {error}; lower the learning rate; what was saved "
                "before is untouched"
            ) from error

    def _save_state(self) -> None:
        save_state(self.run, self.learner, self.position)
        self.saved_at = time.monotonic()
