"""Which clips an epoch has, in what order, and which of them each process takes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from sifa_zoo.datasets.videos import VideoList

_CHUNK = 4096  # keys that become Python objects at a time, since an epoch may have a million


class ClipSampler(Sampler[tuple[int, int]]):
    """Keys `(index, draw)` of a `ClipDataset`: a video's place in the list, and how often it came before in the epoch.

    With a seed, for training, the order depends on `(seed, epoch)` alone. The processes of a distributed run take
    videos in turn, so that together they see what a single process would; the remainder is left out, another one in
    each epoch. Without a seed, for evaluation, each video comes once, in order, and ranks may differ by one video.

    Args:
        videos: The videos of the dataset.
        seed: Seed of training.
        balance: Draw videos with replacement, in proportion to class size to the power of `-balance`: 1 makes all
            classes equally frequent. 0 takes each video once.
        repeats: Clips of each video in an epoch. They follow one another, so a batch size that is a multiple of
            `repeats` keeps them in one batch.
        rank: The number of this process.
        num_replicas: Processes among which the videos are divided.

    Raises:
        ValueError: If a value is out of range, there are fewer videos than processes that train, or `balance` is given
            for videos that may have several classes.

    Example:
        >>> list(ClipSampler(VideoList(["a", "b", "c"], [0, 0, 1], ["x", "y"])))
        [(0, 0), (1, 0), (2, 0)]
    """

    def __init__(
        self,
        videos: VideoList,
        *,
        seed: int | None = None,
        balance: float = 0.0,
        repeats: int = 1,
        rank: int = 0,
        num_replicas: int = 1,
    ) -> None:
        if repeats < 1 or not 0 <= balance <= 1:
            raise ValueError(f"repeats must be at least 1 and balance in [0, 1], got {repeats = }, {balance = }")
        if not 0 <= rank < num_replicas:
            raise ValueError(f"rank must be in [0, num_replicas), got {rank = }, {num_replicas = }")
        if seed is None and (balance or repeats > 1):
            raise ValueError("balance and repeats are for training: they need a seed")
        if seed is not None and len(videos) < num_replicas:
            raise ValueError(f"{len(videos)} training videos cannot be divided among {num_replicas} processes")
        if balance and videos.multi_label:
            raise ValueError("balance needs one class per video, but these may have several; leave it at 0")
        self.videos = videos
        self.seed = seed
        self.balance = balance
        self.repeats = repeats
        self.rank = rank
        self.num_replicas = num_replicas
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        """Clips of this process in a whole epoch, wherever the next pass starts."""
        spare = 0 if self.seed is not None else self.num_replicas - 1 - self.rank
        return (len(self.videos) + spare) // self.num_replicas * self.repeats

    def set_epoch(self, epoch: int, *, start: int = 0) -> None:
        """Sets the epoch of the next pass, and the clip of this process at which it starts."""
        if not 0 <= start <= len(self):
            raise ValueError(f"start must be in [0, {len(self)}], got {start = }")
        self.epoch = epoch
        self.start = start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        indices, draws = self._epoch_videos()
        mine = slice(self.rank, None, self.num_replicas)
        indices, draws = indices[mine], draws[mine]
        for first in range(self.start, len(self), _CHUNK):
            place, repeat = np.divmod(np.arange(first, min(first + _CHUNK, len(self))), self.repeats)
            keys = indices[place], draws[place] * self.repeats + repeat
            yield from zip(keys[0].tolist(), keys[1].tolist(), strict=True)

    def _epoch_videos(self) -> tuple[np.ndarray, np.ndarray]:
        """The videos of this epoch for all processes, and how often each one came before."""
        num_videos = len(self.videos)
        never = np.zeros(num_videos, dtype=np.int64)
        if self.seed is None:
            return np.arange(num_videos), never
        rng = np.random.default_rng([self.seed, self.epoch])
        if not self.balance:
            return rng.permutation(num_videos), never
        weights = self.videos.counts[self.videos.labels] ** -float(self.balance)
        indices = rng.choice(num_videos, num_videos, p=weights / weights.sum())
        return indices, _times_before(indices)


def _times_before(values: np.ndarray) -> np.ndarray:
    """For each place, how often its value stands at an earlier one."""
    order = np.argsort(values, kind="stable")
    rising = values[order]
    result = np.empty_like(order)
    result[order] = np.arange(len(values)) - np.searchsorted(rising, rising)
    return result
