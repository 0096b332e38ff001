"""WebDataset shards: videos in tar files, local or at any fsspec URL, streamed by the webdataset library."""

from __future__ import annotations

import json
import random
import tarfile
from collections.abc import Iterable, Iterator
from itertools import count, islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from sifa_zoo.datasets.clips import ClipCutter
from sifa_zoo.datasets.formats.video_files import VIDEO_SUFFIXES
from sifa_zoo.datasets.shard_list import ShardList
from sifa_zoo.datasets.videos import DataError, few
from sifa_zoo.video.load import NamedBytes, VideoError

_SHUFFLE_BUFFER = 100  # undecoded samples: about 100 MB per worker for videos of ten seconds
_LABELS = ("cls", "txt", "json")

Item: TypeAlias = tuple[Tensor, int | Tensor, int]
Sample: TypeAlias = dict[str, Any]  # the bytes of files by suffix, as webdataset groups them


class UnlabelledError(VideoError, DataError):
    """A video in a shard has no label that can be read, so that it is as useless as one that cannot be decoded."""


class ShardReader(NamedTuple):
    """A loader worker of a process, which decides the shards that it reads: its share of those of the process."""

    rank: int = 0
    num_replicas: int = 1
    worker: int = 0
    num_workers: int = 1


class ShardDataset(IterableDataset[Item]):
    """Clips of the videos in shards: a stream of `(clips, label, index)`, as `ClipDataset` gives them.

    A sample is a video, recognised by its suffix, and its label beside it under the same key: `cls` or `txt` (a name or
    a number), or `json` with a "label". Shards are divided among nodes (of `torch.distributed`, or by RANK and
    WORLD_SIZE) and loader workers, so there should be at least as many of them; none is read twice. For training (the
    cutter has a seed), shards are shuffled by `(seed, epoch)`, and so are samples, in a buffer; the clip that is cut
    from a video depends on `(seed, epoch, key)`. For evaluation each sample comes once, in order.

    `index` is unique: the number of the shard, shifted by 32 bits, plus the place of the sample in it.

    Args:
        videos: The shards, with their classes.
        cutter: How to cut clips.

    Raises:
        DataError: While iterating, if a shard cannot be read, or a sample has an unknown label. The message names shard
            and key.
        VideoError: While iterating, if a video is missing or cannot be decoded, or has no label.

    Example:
        >>> shards = ShardList("s3://bucket/train-{0000..0099}.tar")  # doctest: +SKIP
        >>> dataset = ShardDataset(shards, ClipCutter(clip, transform, seed=0))  # doctest: +SKIP
    """

    def __init__(self, videos: ShardList, cutter: ClipCutter) -> None:
        self.videos = videos
        self.cutter = cutter
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # persistent loader workers must see it

    def __len__(self) -> int:
        """Samples in all shards, as `count_samples` finds them."""
        return len(self.videos)

    def set_epoch(self, epoch: int) -> None:
        """Gives an epoch its own order and clips; call it before iterating."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[Item]:
        from webdataset.utils import pytorch_worker_info

        for _, item in self.named(ShardReader(*pytorch_worker_info())):
            if isinstance(item, VideoError):
                raise item
            yield item

    def named(
        self, reader: ShardReader, *, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[str, Item | VideoError]]:
        """The samples of a reader with their names, `shard, sample key`; or the error in place of one without clips.

        Args:
            reader: Who reads, which decides the shards.
            start: Samples that are skipped, without decoding them.
            stop: The sample before which to stop. The shards are read repeatedly until there are that many, each time
                in another order and with other clips. None reads them once.

        Raises:
            DataError: As when iterating; also, with `stop`, if the shards hold no sample.
        """
        samples = self._samples(reader, 0) if stop is None else self._endless(reader)
        for draw, index, sample in islice(samples, start, stop):
            where = name_of(sample)
            try:
                yield where, self._clips(sample, index, where=where, draw=draw)
            except VideoError as error:
                yield where, error

    def _endless(self, reader: ShardReader) -> Iterator[tuple[int, int, Sample]]:
        for number in count():
            samples = self._samples(reader, number)
            first = next(samples, None)
            if first is None:
                raise DataError(f"no sample in the shards {few([name for _, name in self._shards(reader)])}")
            yield first
            yield from samples

    def _samples(self, reader: ShardReader, number: int) -> Iterator[tuple[int, int, Sample]]:
        """One pass over the shards of a reader: samples, undecoded, each with the number of the pass and its index."""
        import webdataset

        mine = self._shards(reader)
        shuffler = random.Random(f"{self.cutter.seed} {int(self._epoch)} {reader.rank} {reader.worker} {number}")
        if self.cutter.seed is not None and number:
            shuffler.shuffle(mine)
        samples = _read(mine)
        if self.cutter.seed is not None:
            samples = webdataset.shuffle(_SHUFFLE_BUFFER, rng=shuffler)(samples)
        for index, sample in samples:
            yield number, index, sample

    def _shards(self, reader: ShardReader) -> list[tuple[int, str]]:
        """The shards of a reader with their numbers, in the order of this epoch."""
        shards = list(enumerate(self.videos.shards))
        if self.cutter.seed is not None:
            # The same for all readers, since only then are the shards divided among them.
            random.Random(f"{self.cutter.seed} {int(self._epoch)}").shuffle(shards)
        return shards[reader.rank :: reader.num_replicas][reader.worker :: reader.num_workers]

    def _clips(self, sample: Sample, index: int, *, where: str, draw: int) -> Item:
        video = video_of(sample)
        labels = np.asarray(self.videos.place(label_of(sample), where))
        if self.videos.multi_label:
            labels = np.arange(len(self.videos.class_names)) == labels
        key = f"{int(self._epoch)} {sample['__key__']} {draw}"
        return *self.cutter.cut(video, labels, key=key), index


def read_shard(url: str) -> Iterator[Sample]:
    """The samples of a shard.

    Raises:
        DataError: If it cannot be read.
    """
    import fsspec
    from webdataset.tariterators import group_by_keys, tar_file_expander

    try:
        with fsspec.open(url, "rb") as stream:
            yield from group_by_keys(tar_file_expander([{"url": url, "stream": stream}]))
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        first = str(error.args[0] if error.args else error)
        reason = "no such file" if isinstance(error, FileNotFoundError) else first
        raise DataError(f"cannot read the shard {url}: {reason}") from error


def name_of(sample: Sample) -> str:
    """What errors and tables call a sample."""
    return f"{sample['__url__']}, sample {sample['__key__']}"


def video_of(sample: Sample) -> NamedBytes:
    """The video of a sample.

    Raises:
        VideoError: If there is none, or there are several.
    """
    videos = [name for name in sample if f".{name}".endswith(VIDEO_SUFFIXES)]
    if len(videos) != 1:
        names = ", ".join(name for name in sample if not name.startswith("__"))
        hint = "; keys end at the first dot of a name" if videos else ""
        raise VideoError(f"{name_of(sample)}: expected one video, got {len(videos)} ({names}){hint}")
    return NamedBytes(sample[videos[0]], name_of(sample))


def label_of(sample: Sample) -> str:
    """The label of a sample, as it is stated.

    Raises:
        UnlabelledError: If there is none that can be read.
    """
    where = name_of(sample)
    found = next((name for name in _LABELS if name in sample), None)
    if found is None:
        raise UnlabelledError(f"{where}: no label; expected one of {', '.join(_LABELS)} beside the video")
    try:
        text = sample[found].decode("utf-8-sig").strip()
        label = str(json.loads(text)["label"]) if found == "json" else text
    except (ValueError, KeyError, TypeError) as error:
        raise UnlabelledError(f"{where}: expected a label in {found}, got {sample[found][:80]!r}") from error
    if not label:
        raise UnlabelledError(f"{where}: the label in {found} is empty")
    return label


def _read(shards: Iterable[tuple[int, str]]) -> Iterator[tuple[int, Sample]]:
    """The samples of numbered shards, each with its index."""
    for number, url in shards:
        for place, sample in enumerate(read_shard(url)):
            yield number << 32 | place, sample
