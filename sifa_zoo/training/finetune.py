"""Fine-tuning on labelled videos: `finetune`, and its helpers in the order in which they run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader

from sifa_zoo.config import ClipConfig, ReadConfig, TrainConfig
from sifa_zoo.datasets.clip_dataset import ClipDataset
from sifa_zoo.datasets.mirror import describe_mirroring, mirrored_classes
from sifa_zoo.datasets.samplers import ClipSampler
from sifa_zoo.datasets.shard_list import ShardList
from sifa_zoo.datasets.shards import ShardDataset
from sifa_zoo.datasets.transforms import train_transform
from sifa_zoo.datasets.videos import VideoList
from sifa_zoo.evaluation.evaluate import eval_loader
from sifa_zoo.files import CONFIG, LAST
from sifa_zoo.runtime.batches import clip_loader
from sifa_zoo.runtime.devices import spare_cores
from sifa_zoo.runtime.processes import is_writer, on_writer, process_group, rank, say, world_size
from sifa_zoo.runtime.shard_batches import shard_loader
from sifa_zoo.training.epoch import TrainingError, num_updates
from sifa_zoo.training.facts import check_resumable, facts, left_out_before
from sifa_zoo.training.learner import Learner
from sifa_zoo.training.log import EpochRow
from sifa_zoo.training.prepare import build_model, check_files, leave_out, open_run, read_data, settle
from sifa_zoo.training.run import Training, is_over
from sifa_zoo.training.run_config import RunConfig
from sifa_zoo.training.run_folder import best_row, is_of_epoch, restore, write_config
from sifa_zoo.training.stopping import StopSignals, stop_signals
from sifa_zoo.training.trackers import check_trackers, open_trackers

__all__ = ["TrainingError", "best_row", "finetune"]

Videos = tuple[VideoList | ShardList, VideoList | ShardList]


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

    The folder holds `best.safetensors` (by top-1 over the validation videos, or by mean average precision if they may
    have several classes), `last.safetensors`, `log.csv` and `curve.png`, written after each epoch; `state.pt`,
    which resuming needs, written more often if `train` says so; and `config.json`. Under `torchrun` every process calls
    this function, and they train together.

    Args:
        data: A folder with `train` and `val` class folders, or lists `train.txt` and `val.txt` of `path label` lines;
            or a single list or class folder, if `val` is given.
        output: The run folder; new or empty, unless `resume`.
        model: The model's name, with a tag to start from those weights; may be left out with a checkpoint, which
            names it.
        val: Validation videos, where `data` has none: a list or class folder.
        clip: How clips are cut; a mapping names what differs from the settings of the checkpoint or the model.
        train: How to train; a mapping names what differs from the defaults.
        recipe: A name from `sifa_zoo.training.recipes`; its settings then are the defaults.
        model_args: Further arguments of the model's constructor.
        checkpoint: A run folder, weights file, `hf-hub:owner/name` or `local-dir:PATH` to start from; a head for other
            classes is re-initialised.
        pretrained: Start from the model's default weights.
        resume: Continue the run in `output` from where it was last saved, with its settings; "auto" starts one if there
            is none.
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
        OSError: If the disk is full, or another process of the run has ended (`PeerError`); what was saved last is
            still there.

    Example:
        >>> finetune("videos", model="sifa_net_r50", output="runs/mine")  # doctest: +SKIP
    """
    run = Path(output)
    log = (log,) if isinstance(log, str) else log
    given = {
        "data": data,
        "model": model,
        "val": val,
        "clip": clip,
        "train": train,
        "recipe": recipe,
        "model_args": model_args,
        "checkpoint": checkpoint,
        "pretrained": pretrained,
        "reading": reading,
    }
    with process_group(device) as device, stop_signals() as stop:
        on_writer(check_trackers, log)
        resume = on_writer((run / CONFIG).is_file) if resume == "auto" else resume
        config = on_writer(_settle, given, run, resume=resume)
        videos = on_writer(read_data, config, run=run)
        found = on_writer(facts, config, videos, device=device)
        if resume:
            on_writer(check_resumable, run, found)
        prepare = partial(_prepare, config, videos, run=run, device=device, stop=stop)
        left_out = on_writer(left_out_before, run) if resume else {}
        training = prepare(left_out)
        if is_over(training.rows, config.train):
            return _already_finished(training)
        _report(config, found, class_names=videos[0].class_names)
        # A resumed run must keep its number of updates, so videos that have gone bad since fail when they are read.
        if not (resume and config.train.skip_bad):
            left_out = check_files(*videos, workers=config.train.workers, skip_bad=config.train.skip_bad)
            training = prepare(left_out) if left_out else training
        if not resume:
            on_writer(write_config, run, config, {**found, "left_out": left_out})
        return _train(training, log=log, settings={**config.flat(), **found})


def _settle(given: dict[str, Any], run: Path, *, resume: bool) -> RunConfig:
    return settle(given, saved=open_run(run, resume=resume))


def _prepare(
    config: RunConfig,
    videos: Videos,
    left_out: Mapping[str, str],
    *,
    run: Path,
    device: torch.device,
    stop: StopSignals,
) -> Training:
    """Model and loaders, restored from what was saved of the run, without the videos that are left out."""
    train, (train_videos, val_videos) = config.train, leave_out(left_out, *videos)
    val_loader = eval_loader(val_videos, config.clip, train.evaluation, device=device)
    loaders = _train_loader(config, train_videos, device=device), val_loader
    torch.manual_seed(train.seed)
    model = build_model(config, train_videos.class_names, run=run)
    learner = Learner(model, train, updates_per_epoch=num_updates(loaders[0], train), device=device)
    rows, position = restore(run, learner)
    training = Training(
        run=run,
        config=config,
        learner=learner,
        loaders=loaders,
        rows=rows,
        position=position,
        stop=stop,
        left_out=tuple(left_out.values()),
        num_left_out=len(videos[0]) - len(train_videos),
    )
    if rows and not on_writer(is_of_epoch, run / LAST, len(rows)):  # killed after saving the state, before all else
        training.save_epoch()
    return training


def _train_loader(config: RunConfig, videos: VideoList | ShardList, *, device: torch.device) -> DataLoader:
    train, clip = config.train, config.clip
    transform = train_transform(clip, train)
    mirrored = mirrored_classes(videos.class_names) if train.hflip else None
    if isinstance(videos, ShardList):
        return shard_loader(
            ShardDataset(videos, clip, transform, seed=train.seed, mirrored=mirrored, yield_errors=True),
            batch_size=train.batch_size,
            workers=train.workers,
            device=device,
        )
    sampler = ClipSampler(
        videos,
        seed=train.seed,
        balance=train.balance,
        repeats=train.repeats,
        rank=rank(),
        num_replicas=world_size(),
    )
    return clip_loader(
        ClipDataset(videos, clip, transform, seed=train.seed, mirrored=mirrored),
        batch_size=train.batch_size,
        sampler=sampler,
        workers=train.workers,
        device=device,
    )


def _already_finished(training: Training) -> EpochRow:
    done, of = len(training.rows), training.config.train.epochs
    how_many = f"all {of} epochs are done" if done == of else f"it stopped early, after epoch {done}"
    say(f"{training.run} is finished: {how_many}, there is nothing to resume")
    return best_row(training.rows)


def _report(config: RunConfig, found: Mapping[str, Any], *, class_names: Sequence[str]) -> None:
    """Print every setting in effect, what follows from them, and what mirroring does."""
    for name, value in {**config.flat(), **found}.items():
        say(f"  {name:22} {value}")
    for line in describe_mirroring(class_names) if config.train.hflip else ():
        say(f"  {line}")


def _train(training: Training, *, log: Sequence[str], settings: Mapping[str, Any]) -> EpochRow:
    """Run the epochs that are left, logging to the trackers that `log` names."""
    learner = training.learner
    with spare_cores(learner.device, workers=learner.train.workers), ExitStack() as stack:
        if is_writer():
            trackers = open_trackers(log, training.run, settings=settings, update=learner.updates)
            training.log = stack.enter_context(trackers)
        with training.stop.deferred():
            training.run_epochs()
    return training.finish()
