"""Accuracy over videos: softmax scores averaged over a video's clips, then top-1 and top-5."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from sifa_zoo.config import ClipConfig
from sifa_zoo.data.datasets import ClipDataset
from sifa_zoo.data.formats import read_videos
from sifa_zoo.data.transforms import eval_transform
from sifa_zoo.data.videos import DataError
from sifa_zoo.engine.checkpoint import clip_config, load_run, model_cfg
from sifa_zoo.engine.device import autocast, pick_device, spare_cores
from sifa_zoo.engine.distributed import gather_rows, is_writer
from sifa_zoo.engine.loader import clip_loader


def video_scores(model: nn.Module, clips: Tensor, *, precision: str = "fp32") -> Tensor:
    """Scores in [0, 1], float32 `(B, num_classes)`, of clips `(B, num_clips, C, T, H, W)`: the mean over clips."""
    batch, num_clips = clips.shape[:2]
    with autocast(clips.device, precision):
        logits = model(clips.flatten(0, 1))
    return logits.float().softmax(-1).unflatten(0, (batch, num_clips)).mean(1)


@torch.inference_mode()
def evaluate(
    model: nn.Module, loader: DataLoader, *, device: torch.device | str, precision: str = "fp32"
) -> dict[str, Any]:
    """Evaluate a model on the videos of `clip_loader`, whose dataset cuts evaluation clips.

    Returns:
        `top1` and `top5` in percent (top-5 is top-k of all classes where there are fewer), `loss` (cross-entropy of the
        averaged scores), `videos` evaluated of `expected`, and `failed`, a line for each video that is missing.
    """
    was_training = model.training
    model.eval()
    rows: list[tuple[int, int, Tensor]] = []  # place in the list, label, scores
    failed: list[str] = []
    expected = len(loader.dataset)  # type: ignore[arg-type]
    leave = not sys.stderr.isatty()  # in a file a bar that is wiped out would swallow the next line
    with tqdm(total=expected, desc="evaluate", leave=leave, dynamic_ncols=True, disable=not is_writer()) as bar:
        for batch in loader:
            failed.extend(batch.failed)
            if len(batch.labels):
                scores = video_scores(model, batch.clips.to(device, non_blocking=True), precision=precision).cpu()
                rows += zip(batch.indices.tolist(), batch.labels.tolist(), scores, strict=True)
            bar.update(len(batch.labels) + len(batch.failed))
    model.train(was_training)
    rows, failed = sorted(gather_rows(rows), key=lambda row: row[0]), sorted(gather_rows(failed))
    scores = torch.stack([row[2] for row in rows]) if rows else torch.empty(0, 1)
    means = _accuracy(torch.tensor([row[1] for row in rows], dtype=torch.int64), scores)
    return {**means, "videos": len(rows), "expected": expected, "failed": tuple(failed)}


def _accuracy(labels: Tensor, scores: Tensor) -> dict[str, float]:
    hits = (scores.topk(min(5, scores.shape[-1])).indices == labels[:, None]).double()
    loss = F.nll_loss(scores.clamp_min(1e-12).log(), labels).item()
    return {"top1": 100 * hits[:, 0].mean().item(), "top5": 100 * hits.sum(1).mean().item(), "loss": loss}


def evaluate_run(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    split: str = "val",
    format: str | None = None,
    remap: str | os.PathLike[str] | None = None,
    allow_missing: bool = False,
    fold: int = 1,
    num_clips: int | None = None,
    batch_size: int = 8,
    workers: int = 2,
    precision: str | None = None,
    device: torch.device | str | None = None,
) -> dict[str, Any]:
    """Evaluate a run on the videos of a data folder or list; transform, clip and classes are the run's own.

    Args:
        run: A run folder, a weights file of one, or the name of a model with weights.
        data: As for `finetune`.
        split: "train", "val" or "test"; of no account for a single list or class folder.
        format, remap, allow_missing, fold: As for `read_videos`.
        num_clips: Clips per video; None takes what the run was validated with.
        batch_size: Clips per step; the clips of one video stay together.
        workers: Processes that decode videos.
        precision: "fp32" or "bf16"; None takes what the run was validated with.
        device: None takes the GPU where there is one.

    Returns:
        What `evaluate` does, `protocol`, such as `16x4, 224, 1x1 views`, and what was evaluated on what: `arch`, the
        number of `classes`, and `data`, the name of the folder or list.

    Raises:
        DataError: If the labels do not agree with the run's classes, or no video can be decoded.
        ValueError: If there is no such run.
    """
    if batch_size < 1 or workers < 0 or (num_clips is not None and num_clips < 1):
        raise ValueError(f"out of range: {batch_size = }, {num_clips = } (at least 1) or {workers = } (at least 0)")
    device = pick_device(device)
    model = load_run(run, device)
    settings = model_cfg(model)
    num_clips = num_clips or settings.get("num_clips", 1)
    precision = precision or settings.get("precision", "fp32")
    clip = clip_config(model)
    names = settings["label_names"]
    videos = read_videos(data, split, names, format=format, remap=remap, allow_missing=allow_missing, fold=fold)
    dataset = ClipDataset(videos, clip, eval_transform(clip), num_clips=num_clips)
    loader = clip_loader(dataset, batch_size=max(1, batch_size // num_clips), workers=workers, device=device)
    with spare_cores(device, workers=workers):
        result = evaluate(model, loader, device=device, precision=precision)
    if not result["videos"]:
        raise DataError(f"none of the {len(videos)} videos of {data} can be decoded; the first: {result['failed'][0]}")
    evaluated = {"arch": settings["architecture"], "classes": model.num_classes, "data": Path(data).resolve().stem}
    return {**result, **evaluated, "protocol": protocol(clip, num_clips=num_clips)}


def protocol(clip: ClipConfig, *, num_clips: int, num_crops: int = 1) -> str:
    """The settings of an evaluation as the field writes them, such as `16x4, 224, 1x1 views`."""
    return f"{clip.protocol}, {num_clips}x{num_crops} views"
