"""Figures over videos that someone else can compare: how they came about is part of the result, and what is missing."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from sifa_zoo.config import ClipConfig
from sifa_zoo.data.datasets import ClipDataset
from sifa_zoo.data.shard_list import ShardList, read_videos_or_shards
from sifa_zoo.data.shards import ShardDataset
from sifa_zoo.data.transforms import eval_transform
from sifa_zoo.data.videos import DataError, VideoList
from sifa_zoo.engine.checkpoint import clip_config, load_run, model_cfg
from sifa_zoo.engine.device import spare_cores
from sifa_zoo.engine.distributed import gather_rows, is_writer, process_group, world_size
from sifa_zoo.engine.loader import clip_loader
from sifa_zoo.engine.results import describe, write_results
from sifa_zoo.engine.scores import PRECISIONS, ScoreError, VideoScores, figures, gather, scored_batches
from sifa_zoo.engine.shard_loader import ShardStream, shard_loader


def evaluate(
    model: nn.Module,
    loader: DataLoader,
    *,
    device: torch.device | str,
    precision: str = "fp32",
    max_clips: int | None = None,
) -> dict[str, Any]:
    """Evaluate a model on the videos of `clip_loader` or `shard_loader`, whose dataset cuts evaluation clips.

    Under `torch.distributed` each process brings its share of the videos (`clip_loader` with `shard` gives it one), and
    every process gets the figures over all of them, each video counted once.

    Args:
        model: Maps clips to logits; in whatever mode, which it keeps.
        loader: Of a dataset with evaluation clips.
        device: Where the model is.
        precision: "fp32", or autocast to "bf16" or "fp16".
        max_clips: Clips per forward pass; None takes those of a batch at once.

    Returns:
        `top1`, `top5`, `clip_top1`, `clip_top5`, `loss`, `mean_class_accuracy` or for multi-label `map`, as `figures`
        in `scores` describes them; `videos` evaluated of `expected`; `failed`, a line for each that cannot be decoded.
    """
    videos = videos_of(loader)
    rows = score_videos(model, loader, device=device, precision=precision, max_clips=max_clips)
    return summarise(rows, videos)


def score_videos(model: nn.Module, loader: DataLoader, *, device: torch.device | str, **options: Any) -> VideoScores:
    """The rows of all videos of a loader, from all processes; options as for `view_scores`.

    Raises:
        ScoreError: If a score is not finite; on every process, whichever of them had it.
    """
    videos = videos_of(loader)
    shards, problems = [], []
    quiet = not is_writer()
    leave = not sys.stderr.isatty()  # in a file a bar that is wiped out would swallow the next line
    by_shards = isinstance(loader.dataset, ShardStream)
    total = -(-len(videos) // world_size()) if by_shards else len(loader.sampler)  # type: ignore[arg-type]
    with tqdm(total=total, desc="evaluate", unit="video", leave=leave, disable=quiet, dynamic_ncols=True) as bar:
        try:
            for rows in scored_batches(model, loader, device=device, multi_label=videos.multi_label, **options):
                shards.append(rows)
                bar.update(len(rows) + len(rows.failed))
        except ScoreError as error:
            problems = [str(error)]
    if problems := gather_rows(problems):
        raise ScoreError(problems[0])
    return gather(shards)


def summarise(rows: VideoScores, videos: VideoList | ShardList) -> dict[str, Any]:
    """The figures, and how many videos they are over."""
    counts = {"videos": len(rows), "expected": len(videos) + videos.num_missing, "failed": rows.failed}
    return {**figures(rows, multi_label=videos.multi_label), **counts}


def videos_of(loader: DataLoader) -> VideoList | ShardList:
    """The videos of a loader of `clip_loader` or `shard_loader`."""
    return loader.dataset.dataset.videos  # type: ignore[attr-defined]


def evaluate_run(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    split: str = "val",
    num_clips: int | None = None,
    num_crops: int | None = None,
    batch_size: int = 8,
    workers: int = 2,
    precision: str | None = None,
    device: torch.device | str | None = None,
    output: str | os.PathLike[str] | None = None,
    **reading: Any,
) -> dict[str, Any]:
    """Evaluate a run on the videos of a data folder or list; transform, clip and classes are the run's own.

    A run that learnt several labels per video is scored so (sigmoid, mAP), even where each video here has one.

    Under `torchrun` every process calls this function, evaluates its share of the videos, and gets the same result.

    Args:
        run: A run folder, a weights file of one, or the name of a model with weights.
        data: As for `finetune`.
        split: "train", "val" or "test"; of no account for a single list or class folder.
        num_clips: Clips per video; None takes what the run was validated with.
        num_crops: Crops per clip; None takes what the run was validated with.
        batch_size: Clips per forward pass; a video with more views takes several.
        workers: Processes that decode videos.
        precision: "fp32", "bf16" or "fp16"; None takes what the run was validated with.
        device: None takes the GPU where there is one.
        output: A folder for tables, pictures and the report; see `write_results`.
        reading: `format`, `remap`, `allow_missing` and `fold`, as for `read_videos`.

    Returns:
        What `evaluate` does, `protocol`, such as `16x4, 224, 10x3 views, softmax mean`, and what was evaluated on what;
        see `describe`.

    Raises:
        DataError: If the labels do not agree with the run's classes, videos may have several where the run learnt one,
            or no video can be decoded.
        ScoreError: If the model's scores are not finite.
        ValueError: If there is no such run, or a number is out of range.
    """
    with process_group(device) as device:
        model = load_run(run, device)
        cfg = model_cfg(model)
        asked = {"num_clips": num_clips, "num_crops": num_crops}
        views = {name: cfg.get(name, 1) if number is None else number for name, number in asked.items()}
        precision = precision or cfg.get("precision", "fp32")
        _check(**views, batch_size=batch_size, workers=workers, precision=precision)
        clip = clip_config(model)
        videos = read_videos_or_shards(data, split, class_names=cfg["label_names"], **reading)
        videos = _labelled_as_trained(videos, run, data, several=cfg.get("multi_label", False))
        per_batch = max(1, batch_size // (views["num_clips"] * views["num_crops"]))
        loader = eval_loader(videos, clip, **views, batch_size=per_batch, workers=workers, device=device)
        with spare_cores(device, workers=workers):
            rows = score_videos(model, loader, device=device, precision=precision, max_clips=batch_size)
        if not len(rows):
            raise DataError(f"none of the {len(videos)} videos of {data} can be decoded; the first: {rows.failed[0]}")
        result = summarise(rows, videos)
        result["protocol"] = protocol(clip, **views, multi_label=videos.multi_label)
        settings = {
            **clip.to_dict(),
            **views,
            "precision": precision,
            "batch_size": batch_size,
            "split": split,
            **reading,
        }
        result |= describe(
            run, data, videos=videos, arch=cfg["architecture"], settings={**settings, "device": str(device)}
        )
        if output is not None and is_writer():
            write_results(Path(output), result, rows=rows, videos=videos)
        return result


def eval_dataset(videos: VideoList, clip: ClipConfig, *, num_clips: int = 1, num_crops: int = 1) -> ClipDataset:
    """Evaluation clips of videos, `num_clips` x `num_crops` views of each."""
    transform = eval_transform(clip, num_crops=num_crops)
    return ClipDataset(videos, clip, transform, num_clips=num_clips, num_crops=num_crops)


def eval_loader(
    videos: VideoList | ShardList,
    clip: ClipConfig,
    *,
    num_clips: int,
    num_crops: int,
    batch_size: int,
    workers: int,
    device: torch.device,
) -> DataLoader:
    """The loader of this process's share of the videos, for `evaluate`."""
    views: dict[str, Any] = {"num_clips": num_clips, "num_crops": num_crops}
    how: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "device": device}
    if isinstance(videos, VideoList):
        return clip_loader(eval_dataset(videos, clip, **views), shard=True, **how)
    transform = eval_transform(clip, num_crops=num_crops)
    return shard_loader(ShardDataset(videos, clip, transform, **views, yield_errors=True), **how)


def protocol(clip: ClipConfig, *, num_clips: int, num_crops: int = 1, multi_label: bool = False) -> str:
    """The settings of an evaluation as the field writes them, such as `16x4, 224, 10x3 views, softmax mean`."""
    mean = "sigmoid" if multi_label else "softmax"
    return f"{clip.protocol}, {num_clips}x{num_crops} views, {mean} mean"


def _labelled_as_trained(
    videos: VideoList | ShardList, run: str | os.PathLike[str], data: str | os.PathLike[str], *, several: bool
) -> VideoList | ShardList:
    """The videos with labels of the kind that the weights learnt, since that decides how logits become scores."""
    if several:
        return videos.as_multi_label()
    if videos.multi_label:
        raise DataError(
            f"videos of {data} may have several labels each, but {run} was trained on videos with one; "
            "evaluate it on data with one label per video, or fine-tune it on data like this"
        )
    return videos


def _check(*, num_clips: int, num_crops: int, batch_size: int, workers: int, precision: str) -> None:
    if min(num_clips, num_crops, batch_size) < 1 or workers < 0:
        limits = f"{num_clips = }, {num_crops = }, {batch_size = } (at least 1) or {workers = } (at least 0)"
        raise ValueError(f"out of range: {limits}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
