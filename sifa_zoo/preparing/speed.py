"""Decoding speed against training speed on this machine, and what to do about it."""

from __future__ import annotations

import itertools
import math
import os
import shlex
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.clip_dataset import ClipDataset
from sifa_zoo.datasets.clips import TRAIN_SHORT_SIDE
from sifa_zoo.datasets.transforms import train_transform
from sifa_zoo.datasets.videos import VideoList
from sifa_zoo.video.load import VideoError, video_info

# At most so many are measured, if the time allows.
_CLIPS, _STEPS = 64, 10


def loading_rate(videos: VideoList, clip: ClipConfig, *, seconds: float = 3.0) -> float:
    """Training clips that one process decodes and transforms per second of CPU time; 0 if no video can be decoded."""
    dataset = ClipDataset(videos, clip, train_transform(clip), seed=0)
    drawn = np.random.default_rng(0).permutation(len(videos))[:_CLIPS].tolist()
    clips = 0
    start = time.process_time()
    for index in itertools.cycle(drawn):
        with suppress(VideoError):  # bad videos are named by the check of files
            dataset[index]
            clips += 1
        elapsed = time.process_time() - start
        if elapsed > seconds or clips >= _CLIPS:
            break
    return clips / elapsed


def training_rate(
    model: nn.Module, clip: ClipConfig, *, batch_size: int, device: torch.device, seconds: float = 5.0
) -> float:
    """Clips per second of wall time that training a model consumes: forward and backward pass in float32."""
    net = model.to(device).to(memory_format=torch.channels_last).train()
    clips = torch.randn(batch_size, 3, clip.num_frames, clip.img_size, clip.img_size, device=device)
    labels = torch.zeros(batch_size, dtype=torch.int64, device=device)
    steps, start = -1, 0.0  # the first step is not counted: it compiles and allocates
    while steps < 1 or (steps < _STEPS and time.perf_counter() - start < seconds):
        F.cross_entropy(net(clips), labels).backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        steps += 1
        start = start or time.perf_counter()
    return steps * batch_size / (time.perf_counter() - start)


def advice(loading: float, training: float, *, cores: int, resize: str | None) -> str:
    """What to do when a worker delivers `loading` clips per second and the model takes `training`.

    Args:
        loading: As measured by `loading_rate`.
        training: As measured by `training_rate`.
        cores: Number of CPU cores.
        resize: The command that makes smaller copies; None if the videos are small already.
    """
    needed = max(1, math.ceil(training / loading))
    if needed <= cores:
        return f"--workers {needed} keeps the model busy"
    way_out = f"smaller copies decode faster: {resize}" if resize else "more cores would help, smaller copies hardly"
    return f"the model would wait: it takes {needed} workers to keep it busy, and there are {cores} cores; {way_out}"


def copied_short_side(clip: ClipConfig) -> int:
    """A short side for copies: about what training decodes, in multiples of 32 pixels."""
    return max(32, round(max(clip.short_side, TRAIN_SHORT_SIDE * clip.img_size) / 32) * 32)


def median_short_side(videos: VideoList) -> float:
    """The median short side of some of the videos, in pixels; 0 if none can be read."""
    sizes = []
    for path in videos.paths[:_CLIPS]:
        with suppress(VideoError):
            info = video_info(path)
            sizes.append(min(info.height, info.width))
    return float(np.median(sizes)) if sizes else 0.0


def resize_command(data: str, clip: ClipConfig, *flags: str) -> str:
    """The command that makes smaller copies of a data set that is read with `flags`."""
    short_side = copied_short_side(clip)
    folder = Path(data).resolve()
    name = folder.with_name(f"{folder.stem}_{short_side}")
    if not Path(data).is_absolute():
        name = Path(os.path.relpath(name))
    return shlex.join(["sifa-zoo", "resize", data, str(name), *flags, "--short-side", str(short_side)])
