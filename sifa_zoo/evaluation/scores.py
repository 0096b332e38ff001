"""A model's scores of videos: one row per video, gathered from all processes before any figure is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.transforms import normalize_clips
from sifa_zoo.datasets.videos import few
from sifa_zoo.runtime.batches import ClipLoader
from sifa_zoo.runtime.devices import autocast
from sifa_zoo.runtime.processes import gather_rows

TOP = 5


class ScoreError(ValueError):
    """A model's scores are not finite, so neither figures nor predictions can be made from them."""


@dataclass(frozen=True)
class VideoScores:
    """Scores of the videos that could be decoded, in the order of the list, and a line for each that could not.

    `indices` are places in the list, int64 `(N,)`; `scores` the means over a video's views, float32 `(N,
    num_classes)`; `views` the best classes of each view, int32 `(N, views, 5)` (fewer where there are fewer classes);
    `labels` int64 `(N,)`, or bool `(N, num_classes)` where a video may have several; `names` as in `Batch`.
    """

    indices: Tensor
    scores: Tensor
    views: Tensor
    labels: Tensor
    names: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)


def view_scores(
    model: nn.Module,
    clips: Tensor,
    *,
    clip: ClipConfig | None = None,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    multi_label: bool = False,
    max_clips: int | None = None,
    names: Sequence[str] = (),
) -> Tensor:
    """Scores of each view of each video.

    Args:
        model: Maps clips to logits; on `device`, in eval mode.
        clips: `(B, views, C, T, H, W)`, uint8, or float32 and normalised.
        clip: How to normalise uint8 ones.
        device: Where the model is; clips go there one forward pass at a time.
        precision: "fp32", or autocast to "bf16" or "fp16".
        multi_label: Sigmoid instead of softmax.
        max_clips: Clips per forward pass; None takes all at once.
        names: Names of the videos, for the error message.

    Returns:
        float32 `(B, views, num_classes)` in [0, 1], on the CPU.

    Raises:
        ScoreError: If a score is not finite; the message names the videos.
    """
    batch, views = clips.shape[:2]
    scores, finite = [], []
    for chunk in clips.flatten(0, 1).split(max_clips or batch * views):
        with autocast(device, precision):
            chunk = chunk.to(device, non_blocking=True)
            logits = model(normalize_clips(chunk, clip) if clip else chunk).float()
        finite.append(logits.isfinite().all(-1).cpu())
        scores.append((logits.sigmoid() if multi_label else logits.softmax(-1)).cpu())
    good = torch.cat(finite).unflatten(0, (batch, views)).all(1)
    refuse_infinite(good, model, names=names, precision=precision)
    return torch.cat(scores).unflatten(0, (batch, views))


@torch.inference_mode()
def scored_batches(model: nn.Module, loader: ClipLoader, **options: Any) -> Iterator[VideoScores]:
    """The rows of each batch of a loader of evaluation clips.

    The model is in eval mode meanwhile; options as for `view_scores`.

    Raises:
        ScoreError: If a score is not finite.
    """
    was_training = model.training
    model.eval()
    try:
        for batch in loader:
            none = torch.empty(0)
            if not len(batch.indices):
                yield VideoScores(batch.indices, none, none, batch.labels, failed=batch.failed)
                continue
            scores = view_scores(model, batch.clips, clip=loader.clip, names=batch.names, **options)
            best = scores.topk(min(TOP, scores.shape[-1])).indices.int()
            labels = batch.labels.bool() if batch.labels.ndim == 2 else batch.labels
            yield VideoScores(batch.indices, scores.mean(1), best, labels, batch.names, batch.failed)
    finally:
        model.train(was_training)


def gather_scores(parts: Sequence[VideoScores]) -> VideoScores:
    """One table of all rows of all processes; a video that came twice counts once.

    Under `torch.distributed` every process must call it, and all get the same table.
    """
    parts = gather_rows([part for part in parts if len(part) or part.failed])
    failed = tuple(sorted(line for part in parts for line in part.failed))
    parts = [part for part in parts if len(part)]
    if not parts:
        none = torch.empty(0, dtype=torch.int64)
        return VideoScores(none, torch.empty(0), torch.empty(0), none, failed=failed)
    indices = torch.cat([part.indices for part in parts])
    order = indices.argsort(stable=True)
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = indices[order].diff() != 0
    order = order[first]
    names = [name for part in parts for name in part.names]
    return VideoScores(
        indices[order],
        scores=torch.cat([part.scores for part in parts])[order],
        views=torch.cat([part.views for part in parts])[order],
        labels=torch.cat([part.labels for part in parts])[order],
        names=tuple(names[place] for place in order),
        failed=failed,
    )


def refuse_infinite(finite: Tensor, model: nn.Module, *, names: Sequence[str] = (), precision: str = "fp32") -> None:
    """Refuse a model's scores unless they are `finite`, bool `(B,)`, for every video.

    Raises:
        ScoreError: If they are not; the message names the model, and the videos if `names` are given.
    """
    good = finite.tolist()
    if all(good):
        return
    name = getattr(model, "pretrained_cfg", {}).get("architecture", type(model).__name__)
    bad = [video for video, fine in zip(names, good, strict=True) if not fine] if names else []
    videos = f" for {few(bad)}" if bad else ""
    raise ScoreError(
        f"the scores of {name} are not finite{videos}: its weights hold NaN or infinity, or overflow in {precision}"
    )
