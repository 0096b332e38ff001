"""Decoding speed against training speed on this machine, and what to do about it."""

from __future__ import annotations

import itertools
import math
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.clips import TRAIN_SHORT_SIDE, ClipCutter, ClipDataset
from sifa_zoo.datasets.shard_list import ShardList
from sifa_zoo.datasets.shards import ShardDataset, ShardReader, read_shard, video_of
from sifa_zoo.datasets.transforms import train_transform
from sifa_zoo.datasets.videos import DataError, VideoList
from sifa_zoo.video.load import VideoError, video_info
from sifa_zoo.video.reader import Video

# At most so many are measured, if the time allows.
_CLIPS, _STEPS = 64, 10


def loading_rate(videos: VideoList | ShardList, clip: ClipConfig, *, seconds: float = 3.0) -> float:
    """Training clips that one process decodes and transforms per second of CPU time; 0 if no video can be decoded."""
    cutter = ClipCutter(clip, train_transform(clip, normalize=False), seed=0)
    drawn = _items_of_shards(videos, cutter) if isinstance(videos, ShardList) else _items_of_list(videos, cutter)
    clips, elapsed = 0, 0.0
    start = time.process_time()
    for is_good in drawn:
        clips += is_good
        elapsed = time.process_time() - start
        if elapsed > seconds or clips >= _CLIPS:
            break
    return clips / elapsed if clips else 0.0


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


def median_short_side(videos: VideoList | ShardList) -> float:
    """The median short side of some of the videos, in pixels; 0 if none can be read."""
    sizes = []
    for video in _some_videos(videos):
        with suppress(VideoError):
            info = video_info(video)
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


def _items_of_list(videos: VideoList, cutter: ClipCutter) -> Iterator[bool]:
    """Cuts clips without end; yields whether each could be decoded: the check of files names those that cannot."""
    dataset = ClipDataset(videos, cutter)
    for index in itertools.cycle(np.random.default_rng(0).permutation(len(videos))[:_CLIPS].tolist()):
        try:
            dataset[index]
            yield True
        except VideoError:
            yield False


def _items_of_shards(videos: ShardList, cutter: ClipCutter) -> Iterator[bool]:
    """The same of samples, from the first shards on."""
    with suppress(DataError):  # named by the check of shards
        for _, item in ShardDataset(videos, cutter).named(ShardReader(), stop=_CLIPS):
            yield not isinstance(item, VideoError)


def _some_videos(videos: VideoList | ShardList) -> Iterator[Video]:
    """The first videos; of shards those of the first one."""
    if isinstance(videos, VideoList):
        yield from videos.paths[:_CLIPS]
        return
    with suppress(DataError):
        for sample in itertools.islice(read_shard(videos.shards[0]), _CLIPS):
            with suppress(VideoError):
                yield video_of(sample)
