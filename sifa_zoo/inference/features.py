"""Features over time, as the classifier gets them: for each window of a video, or each time step of the windows."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor, nn

from sifa_zoo import __version__
from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.transforms import normalize_clips
from sifa_zoo.evaluation.scores import refuse_infinite
from sifa_zoo.inference.stream import Window, crop, open_for, slide
from sifa_zoo.inference.windows import model_windows
from sifa_zoo.runtime.checkpoint import clip_config, model_cfg
from sifa_zoo.weights.info import METADATA_KEY

PER = ("window", "step")
SUFFIXES = (".npy", ".safetensors")
_STEP_FRAMES = 4  # frames per time step, as the models' stem stacks them


@dataclass(frozen=True)
class Features:
    """Features float32 `(N, D)` with times float64 `(N,)`: the middle of each row's frames, in seconds.

    `metadata` says how they were made: `video`, `model`, `weights`, `fps` (of the video, or `clip.fps`),
    `per`, `window` and `hop` in frames, `num_frames`, `frame_stride`, `sampling`, `img_size`, `version`.
    """

    values: np.ndarray
    times: np.ndarray
    metadata: dict[str, Any]


def extract(
    model: nn.Module,
    source: str | os.PathLike[str],
    *,
    per: str = "window",
    clip: ClipConfig | None = None,
    window: int | str | None = None,
    hop: int | str | None = None,
    batch_size: int = 8,
    weights: str = "",
    device: torch.device | str | None = None,
) -> Features:
    """Features of a video, which is decoded once, in order.

    A video of N frames has `W = 1 + max(0, ceil((N - window) / hop))` windows; the last one ends with the video. With
    `per="window"` there are W rows; with `per="step"`, `W * num_frames / 4`, since a time step has four frames. The
    rows of a window are consecutive.

    Args:
        model: A model of the zoo; its head may be untrained. It is set to eval mode.
        source: A video file, or anything else that `open_source` takes.
        per: "window": pooled over time and space, the input of the classifier. "step": pooled over space alone, a row
            for each time step (if the model has two heads, of the first).
        clip: How to cut and transform; None takes the settings that travel with the weights.
        window: Frames (of `clip.fps`, if that is set), or seconds as in "2.5s"; None takes the span of the clip.
        hop: Distance between windows, likewise; None takes num_frames x frame_stride, so that steps are evenly spaced,
            or the window if that is given.
        batch_size: Clips per forward pass.
        weights: Name of the weights, for the metadata.
        device: Where to run; the model is moved there. None leaves it where it is.

    Raises:
        ValueError: If `per` or a length is out of range.
        ScoreError: If the features are not finite.
        VideoError: If the video cannot be opened or decoded.

    Example:
        >>> extract(load_run("runs/mine"), "match.mp4", hop="1s").values.shape  # doctest: +SKIP
        (3600, 2048)
    """
    if per not in PER or batch_size < 1:
        raise ValueError(f"per must be one of {PER} and batch_size at least 1, got {per!r} and {batch_size}")
    clip = clip or clip_config(model)
    model = model.to(device).eval()
    values, times = [], []
    with open_for(clip, source) as opened:
        windows = model_windows(clip, window=window, hop=hop, fps=opened.fps, overlap=False)
        for batch in _batches(slide(opened, clip, windows), batch_size):
            clips = torch.stack([crop(window.clip, clip) for window in batch]).to(next(model.parameters()).device)
            pooled = _pooled(model, normalize_clips(clips, clip), per=per)
            refuse_infinite(pooled.isfinite().all().view(1), model, names=[os.fspath(source)])
            values.append(pooled.cpu().numpy())
            times += [_times(window, per=per) for window in batch]
    facts = {"video": os.fspath(source), "model": model_cfg(model).get("architecture", ""), "weights": weights}
    facts |= {"per": per, "fps": opened.fps, "window": windows.window, "hop": windows.hop}
    facts |= {name: getattr(clip, name) for name in ("num_frames", "frame_stride", "sampling", "img_size")}
    return Features(np.concatenate(values), np.concatenate(times), {**facts, "version": __version__})


def features_files(features: Features, path: str | os.PathLike[str]) -> dict[Path, bytes]:
    """Files that hold features: contents by path, for `write_files`.

    A `.safetensors` file has tensors `features` and `times`, and the metadata as JSON under `sifa_zoo`. A `.npy` file
    has the features alone, and a `.json` file beside it has `times` and the metadata.

    Raises:
        ValueError: If the path has another suffix.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        tensors = {"features": features.values, "times": features.times}
        return {path: save(tensors, {METADATA_KEY: json.dumps(features.metadata)})}
    if path.suffix != ".npy":
        raise ValueError(f"features are written to {' or '.join(SUFFIXES)} files, got {path}")
    buffer = io.BytesIO()
    np.save(buffer, features.values)
    text = json.dumps({**features.metadata, "times": features.times.tolist()}, indent=2)
    return {path: buffer.getvalue(), path.with_suffix(".json"): f"{text}\n".encode()}


@torch.inference_mode()
def _pooled(model: Any, clips: Tensor, *, per: str) -> Tensor:
    """Features of clips `(B, C, T, H, W)`: `(B, D)`, or `(B * T', D)` per step."""
    maps = model.forward_features(clips)
    if per == "window":
        return model.forward_head(maps, pre_logits=True)
    return model.step_features(maps).flatten(0, 1)


def _times(window: Window, *, per: str) -> np.ndarray:
    frames = len(window.times) if per == "window" else _STEP_FRAMES
    return window.times.reshape(-1, frames).mean(1)


def _batches(windows: Iterator[Window], size: int) -> Iterator[list[Window]]:
    batch = []
    for window in windows:
        batch.append(window)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
