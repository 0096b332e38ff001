"""This process's samples of shards: equally many for each process, in epochs that can be resumed anywhere.

The loader takes batches from its workers in turn, beginning with the first. So that a resumed epoch continues as if it
had not been interrupted, shards belong to roles: the worker that gives the next batch takes the role whose turn it is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from sifa_zoo.datasets.shard_list import ShardList
from sifa_zoo.datasets.shards import ShardDataset, ShardReader
from sifa_zoo.datasets.videos import DataError
from sifa_zoo.runtime.processes import is_writer, rank, world_size


class ShardStream(IterableDataset):
    """This process's samples with their names: each once in evaluation, whole batches in training.

    An error that must stop everything is yielded as an item, since in a worker's traceback nobody would find it.
    """

    def __init__(self, dataset: ShardDataset, *, batch_size: int) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.reader = ShardReader(rank=rank(), num_replicas=world_size())
        self.steps = len(dataset) // self.reader.num_replicas // batch_size
        if self.training and not self.steps:
            raise DataError(
                f"{len(dataset)} samples do not make a batch of {batch_size} for each of {self.reader.num_replicas} "
                "processes; take a smaller batch size"
            )
        # Shared with workers that live on, as the dataset's epoch is.
        self._start = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def training(self) -> bool:
        """Whether samples are shuffled and repeated."""
        return self.dataset.cutter.seed is not None

    def __len__(self) -> int:
        """Samples of this process in a whole epoch, wherever the next pass starts; in evaluation about as many."""
        return self.steps * self.batch_size if self.training else -(-len(self.dataset) // self.reader.num_replicas)

    def set_epoch(self, epoch: int, *, start: int = 0) -> None:
        """Chooses the epoch of the next pass, and the sample of this process, first of a batch, at which it starts."""
        self.dataset.set_epoch(epoch)
        self._start.fill_(start // self.batch_size)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        info = get_worker_info()
        worker, num_workers = (info.id, info.num_workers) if info else (0, 1)
        reader = self.reader._replace(worker=worker, num_workers=num_workers)
        limits = {}
        if self.training:
            start = int(self._start)
            role = (worker + start) % num_workers
            done, whole = (len(range(role, stop, num_workers)) * self.batch_size for stop in (start, self.steps))
            reader, limits = reader._replace(worker=role), {"start": done, "stop": whole}
        try:
            yield from self.dataset.named(reader, **limits)
        except DataError as error:
            yield "", error


def usable_workers(videos: ShardList, workers: int, *, training: bool) -> int:
    """How many workers each process can use: one without shards would be idle.

    Raises:
        DataError: If there are fewer shards than training processes.
    """
    shards, processes = len(videos.shards), world_size()
    if training and shards < processes:
        raise DataError(f"{shards} shards cannot be divided among {processes} processes; make at least one for each")
    return min(workers, max(1, shards // processes if training else -(-shards // processes)))


def warn_of_uneven(videos: ShardList, workers: int, *, usable: int, training: bool) -> None:
    """Says on stderr what is wasted if shards cannot be divided evenly among the workers of all processes."""
    if not is_writer():
        return
    shards, processes, streams = len(videos.shards), world_size(), world_size() * max(1, usable)
    if usable < workers:
        print(
            f"warning: {shards} shards are too few for {processes} x {workers} workers: {usable} of each {workers} "
            "are started; make more and smaller shards",
            file=sys.stderr,
        )
    if training and shards % streams:
        print(
            f"warning: {shards} shards cannot be divided evenly among {streams} readers: in each epoch some videos "
            "come twice and others not at all",
            file=sys.stderr,
        )
