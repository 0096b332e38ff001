"""Fine-tuning on labelled videos: `finetune`, and the functions that it is made of in the order in which they run."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import pickle
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from tqdm import tqdm

from sifa_zoo import __version__
from sifa_zoo.config import ClipConfig, RunConfig, TrainConfig, WeightsInfo
from sifa_zoo.data.datasets import ClipDataset
from sifa_zoo.data.decode import VideoError
from sifa_zoo.data.transforms import eval_transform, train_transform
from sifa_zoo.data.videos import VideoList
from sifa_zoo.engine.checkpoint import LAST, STATE, read_info, weights_bytes, write_files
from sifa_zoo.engine.device import pick_device, spare_cores
from sifa_zoo.engine.evaluate import evaluate, protocol
from sifa_zoo.engine.loader import Batch, clip_loader
from sifa_zoo.engine.log import draw_curve, log_csv
from sifa_zoo.engine.prepare import CONFIG, build_model, open_run, read_data, refuse_bad_files, settle
from sifa_zoo.weights import BEST

Row = dict[str, Any]


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
    model_args: dict[str, Any] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    pretrained: bool = False,
    resume: bool = False,
    device: torch.device | str | None = None,
) -> Row:
    """Fine-tune a model on labelled videos and leave a run folder that evaluation and prediction can use.

    The folder holds `best.safetensors` (by top-1 over the validation videos), `last.safetensors`, `state.pt` (what
    resuming needs besides), `log.csv` and `curve.png`, all written after each epoch, and `config.json`.

    Args:
        data: A folder with `train` and `val` class folders, or lists `train.txt` and `val.txt` of `path label` lines;
            or a single list or class folder, if `val` is given.
        output: The run folder; new or empty, unless `resume`.
        model: The model's name, with a tag to start from those weights; may be left out with a checkpoint, which knows
            it.
        val: Validation videos, where `data` has none: a list or class folder.
        clip: How clips are cut; a mapping names what differs from the settings of the checkpoint or the model.
        train: How to train; a mapping names what differs from the defaults.
        model_args: Further arguments of the model's constructor.
        checkpoint: A run folder, weights file, `hf-hub:owner/name` or `local-dir:PATH` to start from; a head for other
            classes is renewed.
        pretrained: Start from the model's default weights.
        resume: Go on after the last finished epoch of the run in `output`, with its settings.
        device: None takes the GPU where there is one.

    Returns:
        The row of the log with the best epoch: `epoch`, `lr`, `train_loss`, `val_loss`, `val_top1`, `val_top5`.

    Raises:
        ValueError: If a setting, the folder or the data (`DataError`) cannot be used; nothing has been trained then.
        TrainingError: If the loss is no longer finite; the message names the videos.
        OSError: If the disk is full; the last finished epoch is still there.

    Example:
        >>> finetune("videos", model="sifa_net_r50", output="runs/mine")  # doctest: +SKIP
    """
    run = Path(output)
    given: dict[str, Any] = {"data": data, "model": model, "val": val, "clip": clip, "train": train}
    given |= {"model_args": model_args, "checkpoint": checkpoint, "pretrained": pretrained}
    config = settle(given, saved=open_run(run, resume=resume))
    device = pick_device(device)
    train_videos, val_videos = read_data(config, run=run)
    torch.manual_seed(config.train.seed)
    net = build_model(config, train_videos.class_names, run=run).to(device).to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(net, config.train.opt, lr=config.train.lr, weight_decay=config.train.weight_decay)
    rows = _restore(run, net, optimizer)
    if rows and not _is_of_epoch(run / LAST, len(rows)):  # killed after the state was saved, before all else was
        _save(run, net, optimizer, rows=rows, config=config, class_names=train_videos.class_names)
    if len(rows) == config.train.epochs:
        print(f"{run} is finished: all {len(rows)} epochs are done, there is nothing to resume")
        return best_row(rows)
    _report(config, train_videos, val_videos, device=device)
    refuse_bad_files(train_videos, val_videos, workers=config.train.workers)
    if not resume:
        _write_config(run, config)
    videos = (train_videos, val_videos)
    with spare_cores(device, workers=config.train.workers):
        rows = _train(net, optimizer, run=run, rows=rows, config=config, videos=videos, device=device)
    best = best_row(rows)
    print(f"best: top-1 {best['val_top1']:.1f} % after epoch {best['epoch']}; weights in {run / BEST}")
    return best


def best_row(rows: Sequence[Row]) -> Row:
    """The epoch with the highest top-1; of equals the one with the lowest validation loss."""
    return max(rows, key=lambda row: (row["val_top1"], -row["val_loss"]))


def _restore(run: Path, model: nn.Module, optimizer: Optimizer) -> list[Row]:
    """Load weights and optimiser of the last finished epoch, if there is one; returns the log so far."""
    if not (run / STATE).exists():
        return []
    try:
        state = torch.load(run / STATE, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{run / STATE} is damaged; start a new --output with --checkpoint {run / LAST}") from error
    rows: list[Row] = state["log"]
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return rows


def _is_of_epoch(weights: Path, epoch: int) -> bool:
    info = read_info(weights) if weights.exists() else None
    return info is not None and info.epoch == epoch


def _report(config: RunConfig, train_videos: VideoList, val_videos: VideoList, *, device: torch.device) -> None:
    """Print every setting that is in effect."""
    views = protocol(config.clip, num_clips=config.train.num_clips)
    facts = {"train videos": len(train_videos), "val videos": len(val_videos), "classes": len(train_videos.class_names)}
    for name, value in {**config.flat(), **facts, "evaluation": views, "device": device}.items():
        print(f"  {name:20} {value}")


def _write_config(run: Path, config: RunConfig) -> None:
    versions = {"sifa_zoo": __version__, "torch": torch.__version__, "timm": timm.__version__}
    versions["python"] = platform.python_version()
    run.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**dataclasses.asdict(config), "versions": versions}, indent=2)
    write_files({run / CONFIG: f"{text}\n".encode()})


def _train(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    run: Path,
    rows: list[Row],
    config: RunConfig,
    videos: tuple[VideoList, VideoList],
    device: torch.device,
) -> list[Row]:
    """The epochs that `rows` does not have yet; each is saved when it ends."""
    train, clip = config.train, config.clip
    dual = getattr(model, "dual_head", False)
    if dual:
        model.set_dual_training(True)  # type: ignore[operator]
    transform = train_transform(clip, crop_scale=train.crop_scale, hflip=train.hflip)
    dataset = ClipDataset(videos[0], clip, transform, seed=train.seed)
    loader = clip_loader(
        dataset, batch_size=train.batch_size, shuffle_seed=train.seed, workers=train.workers, device=device
    )
    val_set = ClipDataset(videos[1], clip, eval_transform(clip), num_clips=train.num_clips)
    val_batch = max(1, train.batch_size // train.num_clips)
    val_loader = clip_loader(val_set, batch_size=val_batch, shard=True, workers=train.workers, device=device)
    scheduler = _cosine(optimizer, train, updates=_updates(loader, train))
    for epoch in range(len(rows), train.epochs):
        start = time.monotonic()
        torch.manual_seed((train.seed << 20) + epoch)  # a resumed run draws what an unbroken one does
        dataset.set_epoch(epoch)
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        row = _train_epoch(model, loader, optimizer, scheduler=scheduler, epoch=epoch, train=train)
        result = evaluate(model, val_loader, device=device, precision=train.precision)
        if result["failed"]:
            raise VideoError(result["failed"][0])
        row |= {"val_loss": result["loss"], "val_top1": result["top1"], "val_top5": result["top5"]}
        rows.append({"epoch": epoch + 1, **row})
        _save(run, model, optimizer, rows=rows, config=config, class_names=videos[0].class_names)
        values = ", ".join(f"{name} {value:.4g}" for name, value in row.items())
        print(f"epoch {epoch + 1}/{train.epochs}: {values} ({time.monotonic() - start:.0f} s)", flush=True)
    return rows


def _updates(loader: DataLoader, train: TrainConfig) -> int:
    """Optimiser steps per epoch."""
    return math.ceil(len(loader) / train.accumulation_steps)


def _cosine(optimizer: Optimizer, train: TrainConfig, *, updates: int) -> CosineLRScheduler:
    """Linear warm-up and a cosine down to zero, per optimiser step."""
    warmup = round(train.warmup_epochs * updates)
    start = train.lr / max(1, warmup)
    return CosineLRScheduler(
        optimizer, train.epochs * updates, warmup_t=warmup, warmup_lr_init=start, t_in_epochs=False
    )


def _train_epoch(
    model: nn.Module,
    loader: DataLoader,
    optimizer: Optimizer,
    *,
    scheduler: CosineLRScheduler,
    epoch: int,
    train: TrainConfig,
) -> Row:
    """One pass over the training videos; returns the last rate and the mean loss."""
    model.train()
    updates = epoch * _updates(loader, train)
    scheduler.step_update(updates)
    parameters = list(model.parameters())
    paths = loader.dataset.dataset.videos.paths  # type: ignore[attr-defined]
    total, seen, names = 0.0, 0, []
    with tqdm(total=len(paths), desc=f"epoch {epoch + 1}/{train.epochs}", unit="clip", dynamic_ncols=True) as bar:
        for i, batch in enumerate(loader):
            names += paths[batch.indices.numpy()].tolist()
            loss = _loss(model, batch, device=parameters[0].device, train=train)
            _refuse_infinite(loss, "loss", names=names, epoch=epoch)
            group_start = i - i % train.accumulation_steps
            (loss / min(train.accumulation_steps, len(loader) - group_start)).backward()
            total, seen = total + loss.item() * len(batch.labels), seen + len(batch.labels)
            if (i + 1) % train.accumulation_steps == 0 or i + 1 == len(loader):
                norm = clip_grad_norm_(parameters, train.clip_grad or math.inf)
                _refuse_infinite(norm, "norm of the gradient", names=names, epoch=epoch)
                lr = optimizer.param_groups[0]["lr"]
                optimizer.step()
                optimizer.zero_grad()
                updates, names = updates + 1, []
                scheduler.step_update(updates)
            bar.set_postfix(loss=f"{total / seen:.3f}", lr=f"{lr:.1e}" if updates else "", refresh=False)
            bar.update(len(batch.labels))
    return {"lr": lr, "train_loss": total / seen}


def _loss(model: nn.Module, batch: Batch, *, device: torch.device, train: TrainConfig) -> Tensor:
    """Cross-entropy, summed over the heads of a model with several."""
    if batch.failed:
        raise VideoError(batch.failed[0])
    clips, labels = batch.clips.to(device, non_blocking=True), batch.labels.to(device, non_blocking=True)
    with torch.autocast(device.type, torch.bfloat16, enabled=train.precision == "bf16"):
        logits = model(clips)
    heads = logits if isinstance(logits, tuple) else (logits,)
    losses = [F.cross_entropy(head.float(), labels, label_smoothing=train.label_smoothing) for head in heads]
    return torch.stack(losses).sum()


def _refuse_infinite(value: Tensor, what: str, *, names: Sequence[str], epoch: int) -> None:
    if not torch.isfinite(value):
        raise TrainingError(
            f"the {what} is {value.item()} in epoch {epoch + 1}, with the videos {', '.join(names)}; "
            "look at these, or lower the learning rate; what was saved before is untouched"
        )


def _save(
    run: Path,
    model: nn.Module,
    optimizer: Optimizer,
    *,
    rows: list[Row],
    config: RunConfig,
    class_names: tuple[str, ...],
) -> None:
    """Write the run folder's files for the epoch that has just ended."""
    info = WeightsInfo(
        arch=config.architecture,
        class_names=class_names,
        clip=config.clip,
        version=__version__,
        model_args=config.model_args,
        epoch=len(rows),
        metrics={name: value for name, value in rows[-1].items() if name.startswith("val_")},
        num_clips=config.train.num_clips,
        precision=config.train.precision,
    )
    weights = weights_bytes(model, info)
    state = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "log": rows}, state)
    files = {run / STATE: state.getvalue()}  # first: resuming reads nothing else
    files |= {run / BEST: weights} if best_row(rows) is rows[-1] else {}
    write_files({**files, run / LAST: weights, run / "log.csv": log_csv(rows), run / "curve.png": draw_curve(rows)})
