"""Batches of clips, with one line of text for each video that cannot be decoded.

An exception in a worker would arrive as a traceback; with a line of text, the caller decides what a failure means.
"""

from __future__ import annotations

import os
import signal
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from sifa_zoo.datasets.clip_dataset import ClipDataset
from sifa_zoo.datasets.clip_sampler import ClipSampler
from sifa_zoo.datasets.shard_list import ShardList
from sifa_zoo.datasets.videos import VideoList
from sifa_zoo.runtime.processes import rank, world_size
from sifa_zoo.video.load import VideoError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LAST_SECONDS = 20  # that a worker survives SIGTERM, so that its parent can finish an update


class Batch(NamedTuple):
    """Clips `(B, C, T, H, W)`, or `(B, num_views, C, T, H, W)` in evaluation, of the videos that could be decoded.

    `labels` and `indices` (places in the list of videos, or as `ShardDataset` numbers them) are int64 `(B,)`; where
    videos may have several classes, `labels` is float32 `(B, num_classes)`. `names` are paths, or `shard, sample key`.
    `failed` has a line for each that could not.
    """

    clips: Tensor
    labels: Tensor
    indices: Tensor
    names: tuple[str, ...]
    failed: tuple[str, ...]


class ClipLoader(DataLoader):
    """Batches of this process's clips of labelled videos, in epochs that can be resumed anywhere.

    Signals are held back while workers start, since one could end a worker before it leaves them to the parent.
    """

    dataset: Any  # `Failsafe`, or `ShardStream`

    def __init__(self, dataset: Dataset, *, workers: int, device: torch.device | str, **options: Any) -> None:
        super().__init__(
            dataset,
            num_workers=workers,
            worker_init_fn=leave_signals_to_parent,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # spares the global one draws that depend on the number of workers
            pin_memory=torch.device(device).type == "cuda",
            **options,
        )

    @property
    def videos(self) -> VideoList | ShardList:
        """All videos, those of other processes included."""
        return self.dataset.dataset.videos

    @property
    def num_clips(self) -> int:
        """Clips of this process in a whole epoch; in evaluation its videos, of shards about so many."""
        return self.dataset.num_clips

    def set_epoch(self, epoch: int, *, start: int = 0) -> None:
        """Choose the epoch of the next pass, and the batch at which it starts."""
        self.dataset.set_epoch(epoch, start=start)

    def __iter__(self) -> Any:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # workers inherit this
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def clip_loader(
    dataset: ClipDataset,
    *,
    batch_size: int,
    sampler: ClipSampler | None = None,
    distributed: bool = False,
    workers: int = 0,
    device: torch.device | str = "cpu",
) -> ClipLoader:
    """A loader of `Batch`es of the clips that the sampler chooses; without one, of each video in order.

    With `distributed`, each process of a run has its share of the videos, and no video comes twice.
    """
    if sampler is None:
        share = {"rank": rank(), "num_replicas": world_size()} if distributed else {}
        sampler = ClipSampler(dataset.videos, **share)
    clips = len(sampler)
    return ClipLoader(
        Failsafe(dataset, sampler, batch_size=batch_size),
        batch_size=batch_size,
        sampler=sampler,
        # batch norm cannot normalise a single last clip; shuffling leaves out another one in each epoch
        drop_last=sampler.seed is not None and clips > batch_size and clips % batch_size == 1,
        collate_fn=collate,
        workers=workers,
        device=device,
    )


class Failsafe(Dataset):
    """The items of a dataset with their names; a `VideoError` replaces an item that cannot be decoded."""

    def __init__(self, dataset: ClipDataset, sampler: ClipSampler, *, batch_size: int) -> None:
        self.dataset = dataset
        self.sampler = sampler
        self.batch_size = batch_size

    @property
    def num_clips(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int, *, start: int = 0) -> None:
        self.dataset.set_epoch(epoch)
        self.sampler.set_epoch(epoch, start=min(start * self.batch_size, len(self.sampler)))

    def __getitem__(self, key: tuple[int, int]) -> tuple[str, Any]:
        name = self.dataset.name(key[0])
        try:
            return name, self.dataset[key]
        except VideoError as error:
            return name, error


def collate(items: list[tuple[str, Any]]) -> Batch:
    """The batch of named items, each a dataset's item or the `VideoError` in its place."""
    failed = tuple(str(item) for _, item in items if isinstance(item, VideoError))
    decoded = [item for _, item in items if not isinstance(item, VideoError)]
    names = tuple(name for name, item in items if not isinstance(item, VideoError))
    if not decoded:
        none = torch.empty(0, dtype=torch.int64)
        return Batch(torch.empty(0), none, none, names, failed)
    clips, labels, indices = default_collate(decoded)
    return Batch(clips, labels, indices, names, failed)


def leave_signals_to_parent(_worker: int) -> None:
    """Let the parent react to a signal that all processes receive: it may want to finish its update."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_LAST_SECONDS))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
