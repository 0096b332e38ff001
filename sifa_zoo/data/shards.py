"""WebDataset shards: videos in tar files, local or behind any fsspec URL, streamed by the webdataset library."""

from __future__ import annotations

import io
import json
import os
import random
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from sifa_zoo.config import ClipConfig
from sifa_zoo.data.clips import ClipCutter
from sifa_zoo.data.decode import NamedBytes, VideoError
from sifa_zoo.data.formats.files import VIDEO_SUFFIXES
from sifa_zoo.data.formats.labels import ClassList, name_labels, parse_class_list
from sifa_zoo.data.formats.remap import place_labels
from sifa_zoo.data.videos import DataError

_SPLITS = {"train": ("train",), "val": ("val", "validation", "test"), "test": ("test",)}
_SHUFFLE_BUFFER = 100  # samples, undecoded: some 100 MB per worker for clips of ten seconds
_LABELS = ("cls", "txt", "json")


class LengthError(DataError, TypeError):
    """Nobody knows how many samples there are; a TypeError too, as `list` expects it of what has no length."""


def find_shards(data: str | os.PathLike[str], split: str | None = None) -> list[str]:
    """The shards that `data` names, in order.

    Args:
        data: A folder with `*.tar`, or with `train/*.tar` and `val/*.tar`; a shard; or a pattern with braces such as
            `s3://bucket/train-{0000..0099}.tar`. Each may be local or any fsspec URL.
        split: `train`, `val` or `test`, where a folder has splits.

    Raises:
        DataError: If there are none, or a local one that is named does not exist.
        ValueError: If `data` is a `pipe:`, which would run a command.
    """
    import fsspec

    name = os.fspath(data)
    if name.startswith("pipe:"):
        raise ValueError(f"shards cannot come from a command, got {name!r}; give a file or an fsspec URL")
    if "{" in name or name.endswith(".tar"):
        from braceexpand import braceexpand

        shards = list(braceexpand(name))
        missing = [shard for shard in shards if "://" not in shard and not os.path.isfile(shard)]
        if missing:
            raise DataError(f"{len(missing)} of {len(shards)} shards do not exist, such as {missing[0]}")
        return shards
    files, root = fsspec.core.url_to_fs(name)
    for folder in (root, *(f"{root}/{part}" for part in _SPLITS.get(split or "", ()))):
        listed = files.ls(folder, detail=False) if files.isdir(folder) else []
        if shards := sorted(path for path in listed if path.endswith(".tar")):
            return [files.unstrip_protocol(path) if "://" in name else path for path in shards]
    parts = f", nor in its folder {split}" if split else "; where it has splits, name one"
    raise DataError(f"no shards (*.tar) in {name}{parts}")


class ShardDataset(IterableDataset[tuple[Tensor, int, int]]):
    """Clips of the videos in shards: a stream of `(clips, label, index)`, as `ClipDataset` gives them.

    A sample is a video, told by its suffix, and its label beside it under the same key: `cls` or `txt` (a name or a
    number), or `json` with a "label". Shards are split over nodes (of `torch.distributed`, or RANK and WORLD_SIZE) and
    loader workers, so there should be at least as many; none is read twice. For training (`seed` given) shards and
    samples are shuffled, the latter in a buffer, by `(seed, epoch)`; the clip cut from a video depends on
    `(seed, epoch, key)`. For evaluation each sample comes once, in order.

    Args:
        shards: As for `find_shards`, or the shards themselves.
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
        ImportError: If webdataset is not installed.
        ValueError: If `num_clips` is out of range.
        VideoError: While iterating, if a video is missing or cannot be decoded.

    Example:
        >>> ShardDataset("s3://bucket/train-{0000..0099}.tar", clip, transform, seed=0)  # doctest: +SKIP
    """

    def __init__(
        self,
        shards: str | os.PathLike[str] | Sequence[str],
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
        try:
            import webdataset  # noqa: F401
        except ImportError as error:
            raise ImportError("shards need the webdataset library: pip install 'sifa-zoo[shards]'") from error
        if seed is not None and max(num_clips, num_crops) > 1:
            raise ValueError(f"training takes one clip and one crop, got {num_clips = }, {num_crops = }, {seed = }")
        self.shards = find_shards(shards) if isinstance(shards, str | os.PathLike) else list(shards)
        self.class_list = _find_class_list(self.shards)
        if class_names is None and self.class_list is None:
            raise DataError(f"{self.shards[0]} has no classes.txt beside it; add it, or give the class names")
        known = class_names if class_names is not None else self.class_list.names if self.class_list else ()
        self.class_names = tuple(known)
        self.cutter = ClipCutter(clip, transform, num_clips=num_clips, num_crops=num_crops, mirrored=mirrored)
        self.seed = seed
        self.remap, self.yield_errors = remap, yield_errors
        self._places: dict[str, int] = {}
        self._length: int | None = None
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # loader workers that live on must see it

    def __len__(self) -> int:
        """Samples in all shards: from `sizes.json` or `__len__` beside them, or counted once if they are local.

        Raises:
            LengthError: If none of these is there.
        """
        if self._length is None:
            self._length = count_samples(self.shards)
        return self._length

    def set_epoch(self, epoch: int) -> None:
        """Gives each epoch another order and other clips; call it before iterating."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[tuple[Tensor, int, int] | VideoError]:  # type: ignore[override]
        import webdataset

        shards = list(enumerate(self.shards))
        shuffler = random.Random(f"{self.seed} {int(self._epoch)}")
        if self.seed is not None:
            shuffler.shuffle(shards)  # on all nodes and workers alike, before they are split
        samples = _read(webdataset.split_by_worker(webdataset.split_by_node(iter(shards))))
        if self.seed is not None:
            samples = webdataset.shuffle(_SHUFFLE_BUFFER, rng=shuffler)(samples)
        for index, sample in samples:
            try:
                yield self._clips(sample, index)
            except VideoError as error:
                if not self.yield_errors:
                    raise
                yield error

    def _clips(self, sample: dict[str, Any], index: int) -> tuple[Tensor, int, int]:
        where = f"{sample['__url__']}, sample {sample['__key__']}"
        videos = [name for name in sample if f".{name}".endswith(VIDEO_SUFFIXES)]
        if len(videos) != 1:
            names = ", ".join(name for name in sample if not name.startswith("__"))
            hint = "; keys end at the first dot of a name" if videos else ""
            raise VideoError(f"{where}: expected one video, got {len(videos)} ({names}){hint}")
        label = self._place(_label(sample, where), where)
        video = NamedBytes(sample[videos[0]], where)
        if self.seed is None:
            return self.cutter.evaluate(video), label, index
        generator = random.Random(f"{self.seed} {int(self._epoch)} {sample['__key__']}")
        clip, labels = self.cutter.train(video, np.asarray(label), generator)
        return clip, int(labels), index

    def _place(self, label: str, where: str) -> int:
        """The place of a label in the class names."""
        if label not in self._places:
            naming = name_labels([label], self.class_list)
            if naming.faults:
                raise DataError(f"{where}: {naming.faults[label]}")
            self._places |= place_labels(naming, self.class_names, self.remap, source=where)[0]
        return self._places[label]


def count_samples(shards: Sequence[str]) -> int:
    """Samples in shards; see `ShardDataset.__len__`."""
    total = 0
    for folder in dict.fromkeys(shard.rpartition("/")[0] for shard in shards):
        names = [shard.rpartition("/")[2] for shard in shards if shard.rpartition("/")[0] == folder]
        sizes, length = _read_beside(folder, "sizes.json"), _read_beside(folder, "__len__")
        known = json.loads(sizes) if sizes else {}
        if all(name in known for name in names):
            total += sum(int(known[name]) for name in names)
        elif length and not sizes:
            total += int(length)
        elif "://" in folder:
            raise LengthError(
                f"how many samples do the shards in {folder} have? Put a sizes.json beside them, with the number per "
                f'file name, such as {{"{names[0]}": 1000}}'
            )
        else:
            total += sum(_count(f"{folder}/{name}" if folder else name) for name in names)
    return total


def _count(shard: str) -> int:
    """Samples with a video in a local shard, from its headers alone."""
    try:
        with tarfile.open(shard) as tar:
            names = [member.name for member in tar if member.isreg()]
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"cannot read the shard {shard}: {error}") from error
    videos = [name for name in names if name.lower().endswith(VIDEO_SUFFIXES)]
    return len({f"{name.rpartition('/')[0]}/{name.rpartition('/')[2].partition('.')[0]}" for name in videos})


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


def _find_class_list(shards: Sequence[str]) -> ClassList | None:
    """`classes.txt` beside the first shard, or in the folder above."""
    if not shards:
        raise DataError("no shards are named")
    folder = shards[0].rpartition("/")[0]
    for place in (folder, folder.rpartition("/")[0]):
        text = _read_beside(place, "classes.txt") if place or not folder else None
        if text is not None:
            lines = [(number, line.strip()) for number, line in enumerate(io.StringIO(text), 1) if line.strip()]
            return parse_class_list(lines, file=f"{place}/classes.txt")
    return None


def _read_beside(folder: str, name: str) -> str | None:
    """The text of a small file beside shards, None where there is none."""
    import fsspec

    files, path = fsspec.core.url_to_fs(f"{folder}/{name}" if folder else name)
    if not files.isfile(path):
        return None
    text: str = files.cat_file(path).decode("utf-8-sig")
    return text
