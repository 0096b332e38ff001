"""Predicts the classes of videos."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sifa_zoo.config import ClipConfig, EvalConfig
from sifa_zoo.datasets.clips import clip_of
from sifa_zoo.datasets.formats.video_files import VIDEO_SUFFIXES, holds_pictures, walk_videos
from sifa_zoo.datasets.videos import DataError, VideoList
from sifa_zoo.evaluation.evaluate import eval_loader
from sifa_zoo.evaluation.scores import scored_batches
from sifa_zoo.runtime.checkpoint import clip_config, model_cfg
from sifa_zoo.video.load import VideoError
from sifa_zoo.video.reader import open_reader


@dataclass(frozen=True)
class Prediction:
    """The best classes of a video with scores in [0, 1], best first; if it cannot be decoded, `error` says why."""

    path: str
    scores: list[tuple[str, float]]
    error: str | None = None


def predict(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    clip: ClipConfig | None = None,
    num_clips: int = 1,
    num_crops: int = 1,
    topk: int = 5,
    device: torch.device | str | None = None,
) -> list[tuple[str, float]]:
    """The best classes of a video with their scores in [0, 1], best first.

    Args:
        model: A model of the zoo with a trained head.
        path: A video file.
        class_names: One name per class; None takes those that travel with the weights.
        clip: How to cut and transform; None takes the settings that travel with the weights.
        num_clips: Clips, evenly spaced over the video, whose scores are averaged.
        num_crops: Crops per clip, likewise.
        topk: Maximum number of classes to return.
        device: Where to run; the model is moved there. None leaves it where it is.

    Raises:
        ValueError: If the head was never trained (no class names), or the names do not fit the head.
        VideoError: If the video cannot be decoded; the message names the file.

    Example:
        >>> predict(load_run("runs/mine"), "video.mp4", topk=1)  # doctest: +SKIP
        [('waving', 0.91)]
    """
    how = EvalConfig(num_clips, num_crops, workers=0)
    (prediction,) = predict_videos(model, [path], how, class_names=class_names, clip=clip, topk=topk, device=device)
    if prediction.error:
        raise VideoError(prediction.error)
    return prediction.scores


def predict_videos(
    model: nn.Module,
    paths: Sequence[str | os.PathLike[str]],
    how: EvalConfig = EvalConfig(),
    *,
    class_names: Sequence[str] | None = None,
    clip: ClipConfig | None = None,
    topk: int = 5,
    device: torch.device | str | None = None,
) -> Iterator[Prediction]:
    """The best classes of each video, in order, as they are computed; arguments as for `predict`.

    Args:
        model: A model of the zoo with a trained head.
        paths: Video files, or folders of pictures.
        how: Views per video, and how they are computed.
        class_names: One name per class.
        clip: How to cut and transform.
        topk: Maximum number of classes to return.
        device: Where to run.

    Raises:
        ValueError: As `predict`. A video that cannot be decoded is a `Prediction` with an `error` instead.
    """
    names = class_names_of(model, class_names)
    if topk < 1:
        raise ValueError(f"topk must be at least 1, got {topk}")
    clip = clip or clip_config(model)
    model = model.to(device)
    device = next(model.parameters()).device
    files = [os.fspath(path) for path in paths]
    videos = VideoList(files, [0] * len(files), names)
    loader = eval_loader(videos, clip, how, device=device, distributed=False)
    batches = scored_batches(
        model,
        loader,
        device=device,
        precision=how.precision,
        multi_label=is_multi_label(model),
        max_clips=how.batch_size,
    )
    done = 0
    for rows in batches:
        known = dict(zip(rows.indices.tolist(), rows.scores, strict=True))
        failed = iter(rows.failed)  # in the order of the batch
        for index in range(done, done := min(done + how.videos_per_batch, len(files))):
            if index in known:
                yield Prediction(files[index], top_classes(known[index], names, topk=topk))
            else:
                yield Prediction(files[index], [], next(failed))


def clip_frames(path: str | os.PathLike[str], clip: ClipConfig) -> np.ndarray:
    """The frames `(T, H, W, 3)`, uint8 RGB, of the clip that prediction cuts from the middle of a video."""
    reader = open_reader(path)
    return reader.images(clip_of(reader, clip), clip.short_side)


def find_videos(sources: Sequence[str | os.PathLike[str]]) -> list[str]:
    """The videos that `sources` name: files, folders of pictures, all videos below other folders, glob patterns.

    Raises:
        DataError: If a folder holds no video, or a pattern matches nothing.
    """
    found: list[str] = []
    for source in [os.fspath(source) for source in sources]:
        if not source:
            raise DataError("the name of a video is empty")
        if os.path.isdir(source):
            files = [source] if holds_pictures(source) else sorted(walk_videos(source))
            if not files:
                raise DataError(f"no videos below {source}; known are {', '.join(VIDEO_SUFFIXES)}")
        elif glob.has_magic(source) and not os.path.exists(source):
            files = sorted(path for path in glob.glob(source, recursive=True) if os.path.isfile(path))
            if not files:
                raise DataError(f"no file matches {source}")
        else:
            files = [source]
        found += files
    return list(dict.fromkeys(found))


def find_below(sources: Sequence[str | os.PathLike[str]]) -> dict[str, Path]:
    """The videos of `find_videos`, each with its path relative to the named folder, or its name if it was named itself.

    A pattern counts as the folder before its first wildcard.

    Raises:
        DataError: As `find_videos`.
    """
    found: dict[str, Path] = {}
    for name in sources:
        folder = source = Path(name)
        while not folder.is_dir() and folder != folder.parent:
            folder = folder.parent
        if source.is_file() or not folder.is_dir() or holds_pictures(folder):
            folder = source.parent
        for video in find_videos([name]):
            inside = Path(video).is_relative_to(folder)
            found.setdefault(video, Path(video).relative_to(folder) if inside else Path(Path(video).name))
    return found


def class_names_of(model: nn.Module, given: Sequence[str] | None = None) -> tuple[str, ...]:
    """The names of a model's classes: those given, or those that travel with the weights.

    Raises:
        ValueError: If there are none because the head was never trained, or not one per class.
    """
    names = tuple(given or model_cfg(model).get("label_names") or ())
    if not names:
        raise ValueError(
            "the model's head was never trained: it has no class names; "
            "load a fine-tuned run or pretrained=True, or pass class_names if you trained it yourself"
        )
    if len(names) != model.num_classes:
        raise ValueError(f"class_names must be {model.num_classes} names, one per class, got {len(names)}")
    return names


def is_multi_label(model: nn.Module) -> bool:
    """Whether the model was trained on videos that may have several classes, so that each has its own score."""
    return bool(model_cfg(model).get("multi_label", False))


def top_classes(scores: Tensor, names: Sequence[str], *, topk: int) -> list[tuple[str, float]]:
    """Names and scores of the best classes, best first, of scores `(num_classes,)`."""
    best = scores.topk(min(topk, len(names)))
    return [(names[i], score) for score, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
