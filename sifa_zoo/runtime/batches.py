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
from sifa_zoo.datasets.samplers import ClipSampler
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


def clip_loader(
    dataset: ClipDataset,
    *,
    batch_size: int,
    sampler: ClipSampler | None = None,
    distributed: bool = False,
    workers: int = 0,
    device: torch.device | str = "cpu",
) -> DataLoader:
    """A loader of `Batch`es of the clips that the sampler chooses; without one, of each video in order.

    With `distributed`, each process of a run has its share of the videos, and no video comes twice.
    """
    if distributed:
        sampler = ClipSampler(dataset.videos, rank=rank(), num_replicas=world_size())
    training = sampler is not None and sampler.seed is not None
    return ClipLoader(
        Failsafe(dataset),
        batch_size=batch_size,
        sampler=sampler,
        # batch norm cannot normalise a single last clip; shuffling leaves out another one in each epoch
        drop_last=training and len(sampler) > batch_size and len(sampler) % batch_size == 1,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=leave_signals_to_parent,
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # spares the global one draws that depend on the number of workers
        pin_memory=torch.device(device).type == "cuda",
    )


class ClipLoader(DataLoader):
    """Holds back signals while workers start, since one could end a worker before it leaves them to the parent."""

    def __iter__(self) -> Any:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # workers inherit this
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Failsafe(Dataset):
    """The items of a dataset with their names; a `VideoError` replaces an item that cannot be decoded."""

    def __init__(self, dataset: ClipDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[str, Any]:
        name = self.dataset.name(key[0] if isinstance(key, tuple) else key)
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
