"""The videos of a run: read, checked, and made into batches for training."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from sifa_zoo.config import TrainConfig
from sifa_zoo.datasets.clip_sampler import ClipSampler
from sifa_zoo.datasets.clips import ClipCutter
from sifa_zoo.datasets.formats.video_files import real_paths
from sifa_zoo.datasets.mirror import mirrored_classes
from sifa_zoo.datasets.reading import is_pattern, read_videos_or_shards
from sifa_zoo.datasets.shard_list import ShardList
from sifa_zoo.datasets.transforms import train_transform
from sifa_zoo.datasets.videos import DataError, VideoList, check_trainable, names_alike
from sifa_zoo.files import LAST
from sifa_zoo.preparing.check import find_undecodable
from sifa_zoo.runtime.batches import ClipLoader, clip_loader
from sifa_zoo.runtime.checkpoint import read_info
from sifa_zoo.runtime.processes import gather_rows, on_writer, rank, say, world_size
from sifa_zoo.training.learner import global_batch
from sifa_zoo.training.run_config import RunConfig
from sifa_zoo.video.load import VideoError
from sifa_zoo.weights.info import WeightsInfo

Videos: TypeAlias = VideoList | ShardList


class LostDataError(DataError):
    """The videos could no longer be read during a run."""

    exit_code = 1


def read_data(config: RunConfig, *, run: Path) -> tuple[Videos, Videos]:
    """Training and validation videos; classes keep the order of the run or checkpoint if it has the same ones.

    A remap must lead to the classes of the run or checkpoint, if there is one.

    Raises:
        DataError: If they cannot be read or trained on.
        ValueError: If a setting does not suit them.
    """
    how, info = config.reading, start_info(config, run)
    train_videos = read_videos_or_shards(config.data, "train", info.class_names if info and how.remap else None, how)
    if info and set(info.class_names) == set(train_videos.class_names):
        train_videos = train_videos.with_classes(info.class_names)
    elif (run / LAST).exists():
        raise DataError(f"the classes of {config.data} are no longer those of the run in {run}; start a new --output")
    _check_training(config.train, train_videos)
    how_val = dataclasses.replace(how, format=None) if config.val else how
    val_videos = read_videos_or_shards(config.val or config.data, "val", train_videos.class_names, how_val)
    if val_videos.multi_label and not train_videos.multi_label:
        raise DataError("validation videos have several labels each, but training videos have one")
    if train_videos.multi_label:
        if isinstance(val_videos, ShardList):
            raise DataError("training videos may have several labels each, but videos in shards have one")
        val_videos = val_videos.as_multi_label()
    _compare_splits(config, train_videos, val_videos)
    return train_videos, val_videos


def start_info(config: RunConfig, run: Path) -> WeightsInfo | None:
    """The description stored with the weights that training starts from."""
    if (run / LAST).exists():
        return read_info(run / LAST)
    return read_info(config.checkpoint) if config.checkpoint else None


def check_files(*data: Videos, workers: int | None, skip_bad: bool = False) -> dict[str, str]:
    """Open every video that was never opened before, each process its share, and name the bad ones on stderr.

    Videos in shards are not opened: each epoch reads them anyway.

    Returns:
        A line, `path: reason`, for each bad video, by path.

    Raises:
        DataError: If there are bad videos, unless they are skipped.
    """
    lists = [videos for videos in data if isinstance(videos, VideoList)]
    if len(lists) < len(data):
        say("  videos in shards are checked as they are read")
    mine = [videos.subset(np.arange(rank(), len(videos), world_size())) for videos in lists]
    bad = dict(gather_rows([row for videos in mine for row in find_undecodable(videos, workers=workers or 1).items()]))
    on_writer(_name_bad_files, list(bad.values()), total=sum(map(len, lists)), skip_bad=skip_bad)
    return bad


def leave_out(bad: Mapping[str, str], *data: Videos) -> tuple[Videos, Videos]:
    """Training and validation data without the bad videos, which count as missing.

    Raises:
        DataError: If nothing is left for training or validation.
    """
    train, val = (videos.without(bad.keys()) if isinstance(videos, VideoList) else videos for videos in data)
    for left, kind in ((train, "training"), (val, "validation")):
        if bad and not len(left):
            raise DataError(f"not one {kind} video can be used; they are listed above")
    return train, val


def train_loader(config: RunConfig, videos: Videos, *, device: torch.device) -> ClipLoader:
    """This process's batches of training clips, in epochs that can be resumed anywhere."""
    train, clip = config.train, config.clip
    mirrored = mirrored_classes(videos.class_names) if train.hflip else None
    cutter = ClipCutter(clip, train_transform(clip, train, normalize=False), seed=train.seed, mirrored=mirrored)
    return clip_loader(
        videos,
        cutter,
        batch_size=train.batch_size,
        sampler=_sampler(train, videos) if isinstance(videos, VideoList) else None,
        workers=train.workers,
        device=device,
    )


@contextmanager
def lost_data_in_one_line(data: str, *lists: Videos) -> Iterator[None]:
    """Raises `LostDataError` in place of an error that came about because the data or a worker is gone."""
    try:
        yield
    except VideoError:
        refuse_lost(data, *lists)
        raise
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise LostDataError(
            "a process that decodes videos was killed, perhaps out of memory; --resume with fewer --workers"
        ) from error


def refuse_lost(data: str, *lists: Videos) -> None:
    """Raises `LostDataError` if the data, or the folder of all videos of a list, is gone."""
    folders = [
        os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in videos.paths])
        for videos in lists
        if isinstance(videos, VideoList)
    ]
    for place in (*(() if is_pattern(data) else (data,)), *folders):
        if place and not os.path.exists(place):
            raise LostDataError(f"{place} is gone: bring it back and continue with --resume")


def _sampler(train: TrainConfig, videos: VideoList) -> ClipSampler:
    return ClipSampler(
        videos,
        seed=train.seed,
        balance=train.balance,
        repeats=train.repeats,
        rank=rank(),
        num_replicas=world_size(),
    )


def _check_training(train: TrainConfig, videos: Videos) -> None:
    """Refuse what cannot be trained on; for shards, only classes and the number of samples are known."""
    for names in names_alike(videos.class_names):
        print(f"warning: the classes {' and '.join(names)} differ in case only", file=sys.stderr)
    if isinstance(videos, VideoList):
        check_trainable(videos)
        _warn_of_small_epochs(train, num_clips=len(videos) * train.repeats)
        if idle := [name for name, count in zip(videos.class_names, videos.counts, strict=True) if not count]:
            print(f"warning: classes without a training video: {', '.join(idle[:20])}", file=sys.stderr)
        _sampler(train, videos)  # refuses what it cannot balance or divide
        return
    if len(videos.class_names) < 2:
        raise DataError(f"training needs at least two classes, got {', '.join(videos.class_names)}")
    if train.balance or train.repeats > 1:
        raise ValueError(
            f"balance and repeats need a list of all videos, which shards do not have; leave them out, got "
            f"balance = {train.balance}, repeats = {train.repeats}"
        )


def _warn_of_small_epochs(train: TrainConfig, *, num_clips: int) -> None:
    """Warn if updates have fewer clips than the global batch, for which rates may have been scaled."""
    batch = global_batch(train, num_replicas=world_size())
    if batch > num_clips:
        rates = f"; the rates are scaled to {batch}, take a smaller batch" if train.lr_batch else ""
        print(f"warning: an epoch has {num_clips} clips, fewer than the {batch} of an update{rates}", file=sys.stderr)


def _compare_splits(config: RunConfig, *splits: Videos) -> None:
    """Refuse validation on training videos alone, and warn of some among them; shards are compared as files."""
    kind = "shards" if isinstance(splits[1], ShardList) else "videos"
    train, val = map(_files, splits)
    shared = train & val
    if len(shared) == len(val):
        raise DataError(f"{config.data} has no validation {kind} besides the training {kind}; name some with --val")
    if shared:
        print(f"warning: {len(shared)} validation {kind} are in training too, such as {min(shared)}", file=sys.stderr)
    for videos in splits:
        len(videos)  # counts the samples of shards now, once for all processes


def _files(videos: Videos) -> set[str]:
    return set(videos.shards if isinstance(videos, ShardList) else real_paths(videos.paths.tolist()))


def _name_bad_files(bad: list[str], *, total: int, skip_bad: bool) -> None:
    for line in bad:
        print(line, file=sys.stderr)
    counts = f"{len(bad)} of {total} videos cannot be used (listed above)"
    if bad and not skip_bad:
        raise DataError(f"{counts}; repair or remove them, or leave them out with --skip-bad")
    if bad:
        print(f"warning: {counts} and will be skipped", file=sys.stderr)
