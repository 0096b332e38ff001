"""Fine-tuning on labelled videos: `finetune`, and the functions that it is made of in the order in which they run."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from tqdm import tqdm

from sifa_zoo.config import ClipConfig, RunConfig, TrainConfig
from sifa_zoo.data.datasets import ClipDataset
from sifa_zoo.data.decode import VideoError
from sifa_zoo.data.mirror import describe_mirroring, mirrored_classes
from sifa_zoo.data.mixing import BatchMixer
from sifa_zoo.data.samplers import ClipSampler
from sifa_zoo.data.transforms import eval_transform, train_transform
from sifa_zoo.data.videos import VideoList
from sifa_zoo.engine.checkpoint import LAST
from sifa_zoo.engine.device import pick_device, spare_cores
from sifa_zoo.engine.evaluate import evaluate, protocol
from sifa_zoo.engine.loader import Batch, clip_loader
from sifa_zoo.engine.loss import clip_loss
from sifa_zoo.engine.optim import build_optimizer, build_scheduler, effective_rates, global_batch
from sifa_zoo.engine.prepare import build_model, open_run, read_data, refuse_bad_files, settle
from sifa_zoo.engine.run_folder import Row, best_row, is_of_epoch, metric, restore, save, write_config
from sifa_zoo.weights import BEST

_METRICS = ("loss", "top1", "top5", "map")  # of an evaluation, those that the log keeps


class TrainingError(ValueError):
    """Training cannot go on: the loss or a gradient is no longer a finite number."""


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
    resume: bool = False,
    device: torch.device | str | None = None,
) -> Row:
    """Fine-tune a model on labelled videos and leave a run folder that evaluation and prediction can use.

    The folder holds `best.safetensors` (by top-1 over the validation videos, or by mean average precision where they
    may have several classes), `last.safetensors`, `state.pt` (what resuming needs besides), `log.csv` and `curve.png`,
    all written after each epoch, and `config.json`.

    Args:
        data: A folder with `train` and `val` class folders, or lists `train.txt` and `val.txt` of `path label` lines;
            or a single list or class folder, if `val` is given.
        output: The run folder; new or empty, unless `resume`.
        model: The model's name, with a tag to start from those weights; may be left out with a checkpoint, which knows
            it.
        val: Validation videos, where `data` has none: a list or class folder.
        clip: How clips are cut; a mapping names what differs from the settings of the checkpoint or the model.
        train: How to train; a mapping names what differs from the defaults.
        recipe: A name from `sifa_zoo.recipes`, whose settings are the defaults then.
        model_args: Further arguments of the model's constructor.
        checkpoint: A run folder, weights file, `hf-hub:owner/name` or `local-dir:PATH` to start from; a head for other
            classes is renewed.
        pretrained: Start from the model's default weights.
        resume: Go on after the last finished epoch of the run in `output`, with its settings.
        device: None takes the GPU where there is one.

    Returns:
        The row of the log with the best epoch: `epoch`, `lr`, `train_loss`, `val_loss` and `val_top1`,
        `val_top5` or `val_map`.

    Raises:
        ValueError: If a setting, the folder or the data (`DataError`) cannot be used; nothing has been trained then.
        TrainingError: If the loss is no longer finite; the message names the videos.
        OSError: If the disk is full; the last finished epoch is still there.

    Example:
        >>> finetune("videos", model="sifa_net_r50", output="runs/mine")  # doctest: +SKIP
    """
    run = Path(output)
    given: dict[str, Any] = {"data": data, "model": model, "val": val, "clip": clip, "train": train, "recipe": recipe}
    given |= {"model_args": model_args, "checkpoint": checkpoint, "pretrained": pretrained}
    config = settle(given, saved=open_run(run, resume=resume))
    device = pick_device(device)
    train_videos, val_videos = read_data(config, run=run)
    loaders = _train_loader(config, train_videos, device=device), _val_loader(config, val_videos, device=device)
    torch.manual_seed(config.train.seed)
    net = build_model(config, train_videos.class_names, run=run).to(device).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(net, config.train)
    rows = restore(run, net, optimizer)
    if rows and not is_of_epoch(run / LAST, len(rows)):  # killed after the state was saved, before all else was
        save(run, net, optimizer, rows=rows, config=config, class_names=train_videos.class_names)
    if len(rows) == config.train.epochs:
        print(f"{run} is finished: all {len(rows)} epochs are done, there is nothing to resume")
        return best_row(rows)
    _report(config, train_videos, val_videos, device=device)
    refuse_bad_files(train_videos, val_videos, workers=config.train.workers)
    if not resume:
        write_config(run, config)
    with spare_cores(device, workers=config.train.workers):
        rows = _train(net, optimizer, run=run, rows=rows, config=config, loaders=loaders)
    best = best_row(rows)
    name = {"val_top1": "top-1", "val_map": "mAP"}[metric(best)]
    print(f"best: {name} {best[metric(best)]:.1f} % after epoch {best['epoch']}; weights in {run / BEST}")
    return best


def _train_loader(config: RunConfig, videos: VideoList, *, device: torch.device) -> DataLoader:
    train, clip = config.train, config.clip
    sampler = ClipSampler(videos, seed=train.seed, balance=train.balance, repeats=train.repeats)
    mirrored = mirrored_classes(videos.class_names) if train.hflip else None
    dataset = ClipDataset(videos, clip, train_transform(clip, train), seed=train.seed, mirrored=mirrored)
    return clip_loader(dataset, batch_size=train.batch_size, sampler=sampler, workers=train.workers, device=device)


def _val_loader(config: RunConfig, videos: VideoList, *, device: torch.device) -> DataLoader:
    train, clip = config.train, config.clip
    transform = eval_transform(clip, num_crops=train.num_crops)
    dataset = ClipDataset(videos, clip, transform, num_clips=train.num_clips, num_crops=train.num_crops)
    batch_size = max(1, train.batch_size // (train.num_clips * train.num_crops))
    return clip_loader(dataset, batch_size=batch_size, shard=True, workers=train.workers, device=device)


def _report(config: RunConfig, train_videos: VideoList, val_videos: VideoList, *, device: torch.device) -> None:
    """Print every setting that is in effect, and what mirroring does."""
    train = config.train
    facts: dict[str, Any] = {"train videos": len(train_videos), "val videos": len(val_videos)}
    facts |= {"classes": len(train_videos.class_names), "global batch": global_batch(train)}
    facts |= {f"effective {name}": rate for name, rate in asdict(effective_rates(train)).items() if train.lr_batch}
    views = {"num_clips": train.num_clips, "num_crops": train.num_crops}
    facts["evaluation"] = protocol(config.clip, **views, multi_label=val_videos.multi_label)
    for name, value in {**config.flat(), **facts, "device": device}.items():
        print(f"  {name:22} {value}")
    for line in describe_mirroring(train_videos.class_names) if train.hflip else ():
        print(f"  {line}")


def _train(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    run: Path,
    rows: list[Row],
    config: RunConfig,
    loaders: tuple[DataLoader, DataLoader],
) -> list[Row]:
    """The epochs that `rows` does not have yet; each is saved when it ends."""
    train, (loader, val_loader) = config.train, loaders
    class_names = _dataset(loader).videos.class_names
    if getattr(model, "dual_head", False):
        model.set_dual_training(True)  # type: ignore[operator]
    scheduler = build_scheduler(optimizer, train, updates=_updates(loader, train))
    mixer = BatchMixer(train, num_classes=len(class_names), seed=train.seed)
    for epoch in range(len(rows), train.epochs):
        start = time.monotonic()
        torch.manual_seed((train.seed << 20) + epoch)  # a resumed run draws what an unbroken one does
        _dataset(loader).set_epoch(epoch)
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        row = _train_epoch(model, loader, optimizer, scheduler=scheduler, mixer=mixer, epoch=epoch, train=train)
        result = evaluate(model, val_loader, device=next(model.parameters()).device, precision=train.precision)
        if result["failed"]:
            raise VideoError(result["failed"][0])
        row |= {f"val_{name}": result[name] for name in _METRICS if name in result}
        rows.append({"epoch": epoch + 1, **row})
        save(run, model, optimizer, rows=rows, config=config, class_names=class_names)
        values = ", ".join(f"{name} {value:.4g}" for name, value in row.items())
        print(f"epoch {epoch + 1}/{train.epochs}: {values} ({time.monotonic() - start:.0f} s)", flush=True)
    return rows


def _dataset(loader: DataLoader) -> ClipDataset:
    return loader.dataset.dataset  # type: ignore[attr-defined]


def _updates(loader: DataLoader, train: TrainConfig) -> int:
    """Optimiser steps per epoch."""
    return math.ceil(len(loader) / train.accumulation_steps)


def _train_epoch(
    model: nn.Module,
    loader: DataLoader,
    optimizer: Optimizer,
    *,
    scheduler: CosineLRScheduler,
    mixer: BatchMixer,
    epoch: int,
    train: TrainConfig,
) -> Row:
    """One pass over the training clips; returns the last rate and the mean loss."""
    model.train()
    updates = epoch * _updates(loader, train)
    scheduler.step_update(updates)
    parameters = list(model.parameters())
    paths = _dataset(loader).videos.paths
    total, seen, names, lr = 0.0, 0, [], 0.0
    bar = tqdm(loader, desc=f"epoch {epoch + 1}/{train.epochs}", unit="batch", dynamic_ncols=True)
    for step, batch in enumerate(bar):
        names += paths[batch.indices.numpy()].tolist()
        loss = _loss(model, batch, mixer=mixer, place=(epoch, step), train=train)
        _refuse_infinite(loss, "loss", names=names, epoch=epoch)
        group_start = step - step % train.accumulation_steps
        (loss * train.loss_weight / min(train.accumulation_steps, len(loader) - group_start)).backward()
        total, seen = total + loss.item() * len(batch.labels), seen + len(batch.labels)
        if (step + 1) % train.accumulation_steps == 0 or step + 1 == len(loader):
            norm = clip_grad_norm_(parameters, train.clip_grad or math.inf)
            _refuse_infinite(norm, "norm of the gradient", names=names, epoch=epoch)
            lr = optimizer.param_groups[0]["lr"]
            optimizer.step()
            optimizer.zero_grad()
            updates, names = updates + 1, []
            scheduler.step_update(updates)
        bar.set_postfix(loss=f"{total / seen:.3f}", lr=f"{lr:.1e}", refresh=False)
    return {"lr": lr, "train_loss": total / seen}


def _loss(model: nn.Module, batch: Batch, *, mixer: BatchMixer, place: tuple[int, int], train: TrainConfig) -> Tensor:
    """The loss of a batch, mixed as its place (epoch, step) in the run tells."""
    if batch.failed:
        raise VideoError(batch.failed[0])
    device = next(model.parameters()).device
    clips, labels = batch.clips.to(device, non_blocking=True), batch.labels.to(device, non_blocking=True)
    clips, targets = mixer(clips, labels, epoch=place[0], step=place[1])
    with torch.autocast(device.type, torch.bfloat16, enabled=train.precision == "bf16"):
        logits = model(clips)
    return clip_loss(logits, targets, label_smoothing=train.label_smoothing, multi_label=batch.labels.ndim == 2)


def _refuse_infinite(value: Tensor, what: str, *, names: Sequence[str], epoch: int) -> None:
    if not torch.isfinite(value):
        raise TrainingError(
            f"the {what} is {value.item()} in epoch {epoch + 1}, with the videos {', '.join(names)}; "
            "look at these, or lower the learning rate; what was saved before is untouched"
        )
