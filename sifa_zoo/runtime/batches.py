"""Batches of clips, from a list of videos or from shards, with one line of text for each that cannot be decoded.

An exception in a worker would arrive as a traceback; with a line of text, the caller decides what a failure means.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.clip_sampler import ClipSampler
from sifa_zoo.datasets.clips import ClipCutter, ClipDataset
from sifa_zoo.datasets.shard_list import ShardList
from sifa_zoo.datasets.shards import ShardDataset
from sifa_zoo.datasets.videos import DataError, VideoList
from sifa_zoo.runtime.devices import usual_workers
from sifa_zoo.runtime.processes import rank, world_size
from sifa_zoo.runtime.shard_stream import ShardStream, usable_workers, warn_of_uneven
from sifa_zoo.video.load import VideoError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Batches that each worker decodes ahead. They are taken in turn, so with two, PyTorch's default, a slow video stops the
# other workers: over videos of 240p to 1080p two workers then gain 1.5 to 1.7 times over one, with four 1.85 times.
_AHEAD = 4
_LAST_SECONDS = 20  # that a worker survives SIGTERM, so that its parent can finish an update


class Batch(NamedTuple):
    """Clips `(B, C, T, H, W)`, or `(B, num_views, C, T, H, W)` in evaluation, of the videos that could be decoded.

    They are as the transform makes them, so uint8 where they are normalised on the device.

    `labels` and `indices` (places in the list of videos, or as `ShardDataset` numbers them) are int64 `(B,)`; where
    videos may have several classes, `labels` is float32 `(B, num_classes)`. `names` are paths, or `shard, sample key`.
    `failed` has a line for each that could not.
    """

    clips: Tensor
    labels: Tensor
    indices: Tensor
    names: tuple[str, ...]
    failed: tuple[str, ...]


def clip_loader(
    videos: VideoList | ShardList,
    cutter: ClipCutter,
    *,
    batch_size: int,
    sampler: ClipSampler | None = None,
    distributed: bool = False,
    workers: int | None = 0,
    device: torch.device | str = "cpu",
) -> ClipLoader:
    """A loader of this process's `Batch`es of clips.

    From a list it takes the clips that the sampler chooses; without one, each video in order, and with `distributed`
    only the share of this process. From shards it always takes the share of this process: for evaluation each sample
    once; for training as many batches in every process, samples / (processes x batch size), rounded down. A reader
    whose shards hold fewer samples repeats some, and one with more leaves some out.

    `workers` is the number of processes that decode; None takes `usual_workers`.

    Raises:
        DataError: If there are fewer shards than training processes, or too few samples for a batch in each; while
            iterating, as `ShardDataset` does.
    """
    source: dict[str, Any]
    workers = usual_workers(device) if workers is None else workers
    if isinstance(videos, ShardList):
        source = {"dataset": ShardStream(ShardDataset(videos, cutter), batch_size=batch_size)}
        training, asked = cutter.seed is not None, workers
        workers = usable_workers(videos, asked, training=training)
        warn_of_uneven(videos, asked, usable=workers, training=training)
    else:
        if sampler is None:
            share = {"rank": rank(), "num_replicas": world_size()} if distributed else {}
            sampler = ClipSampler(videos, **share)
        # batch norm cannot normalise a single last clip; shuffling leaves out another one in each epoch
        lone = sampler.seed is not None and len(sampler) > batch_size and len(sampler) % batch_size == 1
        source = {"dataset": Failsafe(ClipDataset(videos, cutter)), "sampler": sampler, "drop_last": lone}
    return ClipLoader(
        **source,
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=leave_signals_to_parent,
        persistent_workers=workers > 0,
        prefetch_factor=_AHEAD if workers else None,
        generator=torch.Generator(),  # spares the global one draws that depend on the number of workers
        pin_memory=torch.device(device).type == "cuda",
    )


class ClipLoader(DataLoader):
    """The loader that `clip_loader` makes, whose epochs can start anywhere."""

    @property
    def videos(self) -> VideoList | ShardList:
        """What the clips are cut from."""
        videos: VideoList | ShardList = self.dataset.dataset.videos  # type: ignore[attr-defined]
        return videos

    @property
    def clip(self) -> ClipConfig:
        """How the clips are cut, and to be normalised."""
        clip: ClipConfig = self.dataset.dataset.cutter.clip  # type: ignore[attr-defined]
        return clip

    @property
    def num_clips(self) -> int:
        """Clips of this process in a whole epoch, wherever the next pass starts."""
        return len(self._order)

    def set_epoch(self, epoch: int, *, start: int = 0) -> None:
        """Chooses the epoch of the next pass, and the batch at which it starts."""
        self._order.set_epoch(epoch, start=min(start * (self.batch_size or 1), self.num_clips))

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # A signal could end a worker before it leaves signals to the parent: workers inherit that it waits.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            batches = super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for batch in batches:
            if isinstance(batch, DataError):
                raise batch
            yield batch

    @property
    def _order(self) -> ClipSampler | ShardStream:
        order: Any = self.dataset if isinstance(self.dataset, ShardStream) else self.sampler
        return order  # type: ignore[no-any-return]


class Failsafe(Dataset):
    """The items of a dataset with their names; a `VideoError` replaces an item that cannot be decoded."""

    def __init__(self, dataset: ClipDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[str, Any]:
        name = str(self.dataset.videos.paths[key[0]])
        try:
            return name, self.dataset[key]
        except VideoError as error:
            return name, error


def collate(items: list[tuple[str, Any]]) -> Batch | DataError:
    """The batch of named items, each a dataset's item or the `VideoError` in its place; or the error that ends all."""
    failed, names, decoded = [], [], []
    for name, item in items:
        if isinstance(item, VideoError):
            failed.append(str(item))
        elif isinstance(item, DataError):
            return DataError(str(item))  # of this class, which any process can read
        else:
            names.append(name)
            decoded.append(item)
    none = torch.empty(0, dtype=torch.int64)
    clips, labels, indices = default_collate(decoded) if decoded else (torch.empty(0), none, none)
    return Batch(clips, labels, indices, tuple(names), tuple(failed))


def leave_signals_to_parent(_worker: int) -> None:
    """Let the parent react to a signal that all processes receive: it may want to finish its update."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_LAST_SECONDS))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
