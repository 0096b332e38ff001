"""The classes of one video."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import nn

from sifa_zoo.config import ClipConfig
from sifa_zoo.data.datasets import ClipDataset
from sifa_zoo.data.transforms import eval_transform
from sifa_zoo.data.videos import VideoList
from sifa_zoo.engine.checkpoint import clip_config, model_cfg
from sifa_zoo.engine.evaluate import video_scores


def predict(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    clip: ClipConfig | None = None,
    num_clips: int = 1,
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
        topk: How many classes to return at most.
        device: Where to run; the model is moved there. None leaves it where it is.

    Raises:
        ValueError: If the head was never trained (no class names), or the names do not fit the head.
        VideoError: If the video cannot be decoded; the message names the file.

    Example:
        >>> predict(load_run("runs/mine"), "video.mp4", topk=1)  # doctest: +SKIP
        [('waving', 0.91)]
    """
    names = tuple(class_names or model_cfg(model).get("label_names") or ())
    if not names:
        raise ValueError(
            "the model's head was never trained: it has no class names; "
            "load a fine-tuned run or pretrained=True, or pass class_names if you trained it yourself"
        )
    if len(names) != model.num_classes:
        raise ValueError(f"class_names must be {model.num_classes} names, one per class, got {len(names)}")
    if topk < 1 or num_clips < 1:
        raise ValueError(f"topk and num_clips must be at least 1, got {topk = }, {num_clips = }")
    clip = clip or clip_config(model)
    model = model.to(device)
    video = VideoList(paths=[path], labels=[0], class_names=names)
    clips, _, _ = ClipDataset(video, clip, eval_transform(clip), num_clips=num_clips)[0]  # (num_clips, C, T, H, W)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        scores = video_scores(model, clips[None].to(next(model.parameters()).device))[0]
    model.train(was_training)
    best = scores.topk(min(topk, len(names)))
    return [(names[i], score) for score, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
