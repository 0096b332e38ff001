"""Evaluation with figures that others can compare: the result states its protocol and which videos are missing."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from sifa_zoo.config import ClipConfig, EvalConfig, ReadConfig
from sifa_zoo.datasets.clips import ClipCutter
from sifa_zoo.datasets.reading import read_videos_or_shards
from sifa_zoo.datasets.shard_list import ShardList
from sifa_zoo.datasets.transforms import eval_transform
from sifa_zoo.datasets.videos import DataError, VideoList
from sifa_zoo.evaluation.figures import summarise
from sifa_zoo.evaluation.results import describe, write_results
from sifa_zoo.evaluation.scores import ScoreError, VideoScores, gather_scores, scored_batches
from sifa_zoo.runtime.batches import ClipLoader, clip_loader
from sifa_zoo.runtime.checkpoint import clip_config, load_run, model_cfg
from sifa_zoo.runtime.devices import spare_cores
from sifa_zoo.runtime.processes import gather_rows, is_writer, process_group


def evaluate(
    model: nn.Module,
    loader: ClipLoader,
    *,
    device: torch.device | str,
    precision: str = "fp32",
    max_clips: int | None = None,
) -> dict[str, Any]:
    """Evaluate a model on the videos of a loader whose dataset cuts evaluation clips.

    Under `torch.distributed`, each process evaluates its share of the videos (`clip_loader` with `distributed` gives it
    one) and gets the figures over all of them, each video counted once.

    Args:
        model: Maps clips to logits; its train or eval mode is restored afterwards.
        loader: Of a dataset with evaluation clips.
        device: Where the model is.
        precision: "fp32", or autocast to "bf16" or "fp16".
        max_clips: Clips per forward pass; None takes a whole batch at once.

    Returns:
        `top1`, `top5`, `clip_top1`, `clip_top5`, `loss`, `mean_class_accuracy` or for multi-label `map`, as `figures`
        describes them; `videos` (evaluated) of `expected`; `failed`, a line for each that cannot be read.
    """
    videos = loader.videos
    rows = score_videos(model, loader, device=device, precision=precision, max_clips=max_clips)
    return summarise(rows, videos)


def score_videos(model: nn.Module, loader: ClipLoader, *, device: torch.device | str, **options: Any) -> VideoScores:
    """The rows of all videos of a loader, from all processes; options as for `view_scores`.

    Raises:
        ScoreError: If a score is not finite on any process; raised on all of them.
    """
    videos = loader.videos
    parts, problems = [], []
    quiet = not is_writer()
    leave = not sys.stderr.isatty()  # clearing the bar in a file would swallow the next line
    with tqdm(
        total=loader.num_clips, desc="evaluate", unit="video", leave=leave, disable=quiet, dynamic_ncols=True
    ) as bar:
        try:
            for rows in scored_batches(model, loader, device=device, multi_label=videos.multi_label, **options):
                parts.append(rows)
                bar.update(len(rows) + len(rows.failed))
        except ScoreError as error:
            problems = [str(error)]
    if problems := gather_rows(problems):
        raise ScoreError(problems[0])
    return gather_scores(parts)


def evaluate_run(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    split: str = "val",
    num_clips: int | None = None,
    num_crops: int | None = None,
    batch_size: int = 8,
    workers: int | None = None,
    precision: str | None = None,
    device: torch.device | str | None = None,
    output: str | os.PathLike[str] | None = None,
    reading: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Evaluate a run on the videos of a data folder or list; transform, clip and classes are the run's own.

    A run trained on several labels per video is scored that way (sigmoid, mAP), even if each video here has one. Under
    `torchrun` every process calls this function, evaluates its share of the videos, and gets the same result.

    Args:
        run: A run folder, one of its weights files, or the name of a model with weights.
        data: As for `finetune`.
        split: "train", "val" or "test"; ignored for a single list or class folder.
        num_clips: Clips per video; None takes the value that the run was validated with.
        num_crops: Crops per clip; None takes the value that the run was validated with.
        batch_size: Clips per forward pass; a video with more views takes several.
        workers: Processes that decode videos; None takes as many as suit the machine.
        precision: One of `sifa_zoo.config.PRECISIONS`; None takes the value that the run was validated with.
        device: None takes the GPU if there is one.
        output: A folder for tables, pictures and the report; see `write_results`.
        reading: Settings that differ from the defaults of `ReadConfig`.

    Returns:
        The result of `evaluate`, its `protocol` (`16x4, 224, 10x3 views, softmax mean`), and the facts of `describe`.

    Raises:
        DataError: If the labels are not of the kind and classes that the run was trained on, or no video can be read.
        ScoreError: If the model's scores are not finite.
        ValueError: If there is no such run, or a number is out of range.
    """
    asked: dict[str, Any] = {"num_clips": num_clips, "num_crops": num_crops, "precision": precision}
    given = {name: value for name, value in asked.items() if value is not None}
    how, read = EvalConfig(**given, batch_size=batch_size, workers=workers), ReadConfig(**(reading or {}))
    with process_group(device) as device:
        model = load_run(run, device)
        cfg, clip = model_cfg(model), clip_config(model)
        how = replace(how, **{name: cfg[name] for name in asked.keys() - given.keys()})
        videos = read_videos_or_shards(data, split, cfg["label_names"], read)
        videos = _labelled_as_trained(videos, run, data, several=cfg["multi_label"])
        loader = eval_loader(videos, clip, how, device=device)
        with spare_cores(device, workers=workers):
            rows = score_videos(model, loader, device=device, precision=how.precision, max_clips=batch_size)
        if not len(rows):
            raise DataError(f"none of the {len(videos)} videos of {data} can be decoded; the first: {rows.failed[0]}")
        settings = {**clip.to_dict(), **asdict(how), **asdict(read), "split": split, "device": str(device)}
        result = summarise(rows, videos) | {"protocol": how.protocol(clip, multi_label=videos.multi_label)}
        result |= describe(run, data, videos=videos, arch=cfg["architecture"], settings=settings)
        if output is not None and is_writer():
            write_results(Path(output), result, rows=rows, videos=videos)
        return result


def eval_loader(
    videos: VideoList | ShardList,
    clip: ClipConfig,
    how: EvalConfig,
    *,
    device: torch.device | str,
    distributed: bool = True,
) -> ClipLoader:
    """A loader of evaluation clips, for `evaluate`; with `distributed`, each process has its share of the videos."""
    transform = eval_transform(clip, num_crops=how.num_crops, normalize=False)
    cutter = ClipCutter(clip, transform, num_clips=how.num_clips, num_crops=how.num_crops)
    return clip_loader(
        videos,
        cutter,
        batch_size=how.videos_per_batch,
        distributed=distributed,
        workers=how.workers,
        device=device,
    )


def _labelled_as_trained(
    videos: VideoList | ShardList, run: str | os.PathLike[str], data: str | os.PathLike[str], *, several: bool
) -> VideoList | ShardList:
    """The videos with the kind of labels that the weights were trained on, which decides how logits become scores."""
    if several:
        return videos.as_multi_label()
    if videos.multi_label:
        raise DataError(
            f"videos of {data} may have several labels each, but {run} was trained on videos with one; "
            "evaluate it on data with one label per video, or fine-tune it on data like this"
        )
    return videos
