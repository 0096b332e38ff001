"""WebDataset shards: videos in tar files, local or behind any fsspec URL, streamed by the webdataset library."""

from __future__ import annotations

import json
import os
import random
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils.data import IterableDataset

from sifa_zoo.config import ClipConfig
from sifa_zoo.data.clips import ClipCutter
from sifa_zoo.data.decode import NamedBytes, VideoError
from sifa_zoo.data.formats.files import VIDEO_SUFFIXES
from sifa_zoo.data.formats.labels import name_labels
from sifa_zoo.data.formats.remap import place_labels
from sifa_zoo.data.shard_list import ShardList, count_samples, find_shards, need_library
from sifa_zoo.data.videos import DataError, few

__all__ = ["Part", "ShardDataset", "count_samples", "find_shards"]

_SHUFFLE_BUFFER = 100  # samples, undecoded: some 100 MB per worker for clips of ten seconds
_LABELS = ("cls", "txt", "json")

Item: TypeAlias = tuple[Tensor, int | Tensor, int]


class Part(NamedTuple):
    """Which shards a loader worker reads: of those that go to its process (`rank`) those that go to it."""

    rank: int = 0
    num_replicas: int = 1
    worker: int = 0
    num_workers: int = 1


class ShardDataset(IterableDataset[Item]):
    """Clips of the videos in shards: a stream of `(clips, label, index)`, as `ClipDataset` gives them.

    A sample is a video, told by its suffix, and its label beside it under the same key: `cls` or `txt` (a name or a
    number), or `json` with a "label". Shards are split over nodes (of `torch.distributed`, or RANK and WORLD_SIZE) and
    loader workers, so there should be at least as many; none is read twice. For training (`seed` given) shards and
    samples are shuffled, the latter in a buffer, by `(seed, epoch)`; the clip cut from a video depends on
    `(seed, epoch, key)`. For evaluation each sample comes once, in order.

    Args:
        shards: As for `find_shards`, or the shards themselves; or a `ShardList`, which knows its classes.
        clip: How to cut a clip.
        transform: Maps uint8 `(T, C, H, W)` to the model's input.
        num_clips: Clips per video in evaluation.
        num_crops: Crops per clip in evaluation, those of the transform.
        seed: Seed of training.
        mirrored: As for `ClipDataset`.
        class_names: The classes that labels must belong to, in order. None: those of `classes.txt` beside the shards,
            or in the folder above; it also names labels that are numbers.
        remap: As for `read_videos`.
        yield_errors: Give a `VideoError` in the place of a sample whose video is missing or damaged, and go on.

    `index` is unique: the number of the shard, shifted by 32 bits, and the place of the sample in it.

    Raises:
        DataError: If there are no shards or no class names; while iterating, if a shard cannot be read or a sample has
            no label that is known. Shard and key are named.
        LibraryError: If webdataset is not installed.
        ValueError: If `num_clips` is out of range.
        VideoError: While iterating, if a video is missing or cannot be decoded.

    Example:
        >>> ShardDataset("s3://bucket/train-{0000..0099}.tar", clip, transform, seed=0)  # doctest: +SKIP
    """

    def __init__(
        self,
        shards: str | os.PathLike[str] | Sequence[str] | ShardList,
        clip: ClipConfig,
        transform: Callable[[Tensor], Tensor],
        *,
        num_clips: int = 1,
        num_crops: int = 1,
        seed: int | None = None,
        mirrored: np.ndarray | None = None,
        class_names: Sequence[str] | None = None,
        remap: str | None = None,
        yield_errors: bool = False,
    ) -> None:
        need_library()
        if seed is not None and max(num_clips, num_crops) > 1:
            raise ValueError(f"training takes one clip and one crop, got {num_clips = }, {num_crops = }, {seed = }")
        if not isinstance(shards, ShardList):
            shards = ShardList(shards, class_names, remap=remap)
        self.videos = shards
        self.cutter = ClipCutter(clip, transform, num_clips=num_clips, num_crops=num_crops, mirrored=mirrored)
        self.seed = seed
        self.yield_errors = yield_errors
        self._places: dict[str, int] = {}
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # loader workers that live on must see it

    def __len__(self) -> int:
        """Samples in all shards; see `ShardList`."""
        return len(self.videos)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that labels are places in."""
        return self.videos.class_names

    def set_epoch(self, epoch: int) -> None:
        """Gives each epoch another order and other clips; call it before iterating."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[Item | VideoError]:  # type: ignore[override]
        from webdataset.utils import pytorch_worker_info

        for _, item in self.named(Part(*pytorch_worker_info())):
            yield item

    def named(self, part: Part, *, start: int = 0, stop: int | None = None) -> Iterator[tuple[str, Item | VideoError]]:
        """The samples of a part with their names, `shard, sample key`.

        Args:
            part: Which shards are read.
            start: Samples that are passed over, without decoding them.
            stop: The sample before which to stop. Then the shards are read again and again until there are as many,
                in another order and with other clips each time. None: once.

        Raises:
            DataError: As when iterating; and with `stop`, if the shards hold no sample.
        """
        samples = self._samples(part, 0) if stop is None else self._endless(part)
        for draw, index, sample in islice(samples, start, stop):
            where = f"{sample['__url__']}, sample {sample['__key__']}"
            try:
                yield where, self._clips(sample, index, where=where, draw=draw)
            except VideoError as error:
                if not self.yield_errors:
                    raise
                yield where, error

    def _endless(self, part: Part) -> Iterator[tuple[int, int, dict[str, Any]]]:
        for number in count():
            samples = self._samples(part, number)
            first = next(samples, None)
            if first is None:
                raise DataError(f"no sample in the shards {few([name for _, name in self._shards(part)])}")
            yield first
            yield from samples

    def _samples(self, part: Part, number: int) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """One pass over the shards of a part, undecoded, each sample with the number of the pass and its index."""
        import webdataset

        mine = self._shards(part)
        shuffler = random.Random(f"{self.seed} {int(self._epoch)} {part.rank} {part.worker} {number}")
        if self.seed is not None and number:
            shuffler.shuffle(mine)
        samples = _read(mine)
        if self.seed is not None:
            samples = webdataset.shuffle(_SHUFFLE_BUFFER, rng=shuffler)(samples)
        for index, sample in samples:
            yield number, index, sample

    def _shards(self, part: Part) -> list[tuple[int, str]]:
        """The shards of a part with their numbers, in the order of this epoch."""
        shards = list(enumerate(self.videos.shards))
        if self.seed is not None:
            random.Random(f"{self.seed} {int(self._epoch)}").shuffle(
                shards
            )  # everywhere alike, before they are divided
        return shards[part.rank :: part.num_replicas][part.worker :: part.num_workers]

    def _clips(self, sample: dict[str, Any], index: int, *, where: str, draw: int) -> Item:
        videos = [name for name in sample if f".{name}".endswith(VIDEO_SUFFIXES)]
        if len(videos) != 1:
            names = ", ".join(name for name in sample if not name.startswith("__"))
            hint = "; keys end at the first dot of a name" if videos else ""
            raise VideoError(f"{where}: expected one video, got {len(videos)} ({names}){hint}")
        label = self._place(_label(sample, where), where)
        video = NamedBytes(sample[videos[0]], where)
        if self.seed is None:
            target = one_hot(torch.tensor(label), len(self.class_names)).float() if self.videos.multi_label else label
            return self.cutter.evaluate(video), target, index
        generator = random.Random(f"{self.seed} {int(self._epoch)} {sample['__key__']} {draw}")
        clip, labels = self.cutter.train(video, np.asarray(label), generator)
        return clip, int(labels), index

    def _place(self, label: str, where: str) -> int:
        """The place of a label in the class names."""
        if label not in self._places:
            naming = name_labels([label], self.videos.class_list)
            if naming.faults:
                raise DataError(f"{where}: {naming.faults[label]}")
            self._places |= place_labels(naming, self.class_names, self.videos.remap, source=where)[0]
        return self._places[label]


def _read(shards: Iterable[tuple[int, str]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Samples as webdataset groups them, with their index."""
    import fsspec
    from webdataset.tariterators import group_by_keys, tar_file_expander

    for number, url in shards:
        try:
            with fsspec.open(url, "rb") as stream:
                files = tar_file_expander([{"url": url, "stream": stream}])
                for place, sample in enumerate(group_by_keys(files)):
                    yield number << 32 | place, sample
        except (OSError, EOFError, tarfile.TarError, ValueError) as error:
            reason = (
                "no such file" if isinstance(error, FileNotFoundError) else str(error.args[0] if error.args else error)
            )
            raise DataError(f"cannot read the shard {url}: {reason}") from error


def _label(sample: dict[str, Any], where: str) -> str:
    found = next((name for name in _LABELS if name in sample), None)
    if found is None:
        raise DataError(f"{where}: no label; expected one of {', '.join(_LABELS)} beside the video")
    try:
        text = sample[found].decode("utf-8-sig").strip()
        label = str(json.loads(text)["label"]) if found == "json" else text
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{where}: expected a label in {found}, got {sample[found][:80]!r}") from error
    if not label:
        raise DataError(f"{where}: the label in {found} is empty")
    return label
