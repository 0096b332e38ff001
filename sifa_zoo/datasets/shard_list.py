"""Lists of WebDataset shards: which ones there are, how many samples they hold, and their classes."""

from __future__ import annotations

import copy
import io
import json
import os
import tarfile
from collections.abc import Sequence

from sifa_zoo.datasets.formats.labels import BY_INDEX, ClassList, name_labels, parse_class_list, place_labels
from sifa_zoo.datasets.formats.splits import SPLITS
from sifa_zoo.datasets.formats.video_files import VIDEO_SUFFIXES
from sifa_zoo.datasets.videos import DataError

FORMAT = "webdataset"
_TITLE = "WebDataset shards"


class LengthError(DataError, TypeError):
    """The number of samples is unknown; also a TypeError, since `list` expects that of something without a length."""


class LibraryError(ImportError, ValueError):
    """A library that shards need is not installed; the message says how to install it."""


class ShardList:
    """Shards, in place of a `VideoList`: what is known about their videos before these are read.

    Args:
        shards: What `find_shards` takes, or the paths and URLs of the shards themselves.
        class_names: The classes that labels must belong to, in order. None: those of `classes.txt` beside the shards,
            or in the folder above, which also gives labels that are numbers their names.
        remap: The remap of labels, as in the `how` of `read_videos`.

    Raises:
        DataError: If there are no shards or no class names, or `classes.txt` has classes that `class_names` lacks.
        LibraryError: If the webdataset library is not installed.
    """

    format = _TITLE
    num_missing = 0

    def __init__(
        self,
        shards: str | os.PathLike[str] | Sequence[str],
        class_names: Sequence[str] | None = None,
        *,
        remap: str | None = None,
    ) -> None:
        need_library()
        self.shards = find_shards(shards) if isinstance(shards, str | os.PathLike) else list(shards)
        self.class_list = _find_class_list(self.shards)
        self.remap = remap
        self.multi_label = False
        self._length: int | None = None
        self._places: dict[str, int] = {}
        if self.class_list is not None and remap != BY_INDEX:
            naming = name_labels(self.class_list.names, self.class_list)
            self.class_names = place_labels(naming, class_names, remap, source=self.class_list.file)[1]
        elif class_names is not None:
            self.class_names = tuple(class_names)
        elif remap == BY_INDEX:
            raise DataError(f"--remap {BY_INDEX} needs weights with class names, which the numbers count")
        else:
            raise DataError(f"{self.shards[0]} has no classes.txt beside it; add it, or give the class names")

    def __len__(self) -> int:
        """Samples in all shards, as `count_samples` finds them, once.

        Raises:
            DataError: As from `count_samples`.
        """
        if self._length is None:
            self._length = count_samples(self.shards)
        return self._length

    def place(self, label: str, where: str) -> int:
        """The place of a label among the classes.

        Args:
            label: As a sample states it.
            where: The name of the sample, for the error.

        Raises:
            DataError: If it belongs to none of them.
        """
        if label not in self._places:
            naming = name_labels([label], self.class_list)
            if naming.faults:
                raise DataError(f"{where}: {naming.faults[label]}")
            self._places |= place_labels(naming, self.class_names, self.remap, source=where)[0]
        return self._places[label]

    def with_classes(self, class_names: Sequence[str]) -> ShardList:
        """The same shards, with the same classes in another order."""
        return ShardList(self.shards, class_names, remap=self.remap)

    def as_multi_label(self) -> ShardList:
        """The same shards, with labels as zeros and ones `(num_classes,)`."""
        videos = copy.copy(self)
        videos.multi_label = True
        return videos


def need_library() -> None:
    """Checks that the libraries that read shards are installed.

    Raises:
        LibraryError: If one is not.
    """
    try:
        import fsspec  # noqa: F401
        import webdataset  # noqa: F401
    except ImportError as error:
        raise LibraryError("shards need the webdataset library: pip install 'sifa-zoo[shards]'") from error


def find_shards(data: str | os.PathLike[str], split: str | None = None) -> list[str]:
    """Paths or URLs of the shards that `data` names, in order.

    Args:
        data: A folder with `*.tar`, or with `train/*.tar` and `val/*.tar`; a shard; or a pattern with braces such as
            `s3://bucket/train-{0000..0099}.tar`. Each may be local or any fsspec URL.
        split: `train`, `val` or `test`, if `data` is a folder with splits.

    Raises:
        DataError: If there are none, or a local shard that `data` names does not exist.
        ValueError: If `data` is a `pipe:`, which would run a command.
    """
    need_library()
    import fsspec

    source = os.fspath(data)
    if source.startswith("pipe:"):
        raise ValueError(f"shards cannot come from a command, got {source!r}; give a file or an fsspec URL")
    if "{" in source or source.endswith(".tar"):
        from braceexpand import braceexpand

        shards = list(braceexpand(source))
        missing = [shard for shard in shards if "://" not in shard and not os.path.isfile(shard)]
        if missing:
            raise DataError(f"{len(missing)} of {len(shards)} shards do not exist, such as {missing[0]}")
        return shards
    files, root = fsspec.core.url_to_fs(source)
    for folder in (root, *(f"{root}/{name}" for name in SPLITS.get(split or "", ()))):
        listed = files.ls(folder, detail=False) if files.isdir(folder) else []
        if shards := sorted(path for path in listed if path.endswith(".tar")):
            here = (
                f"{source.rstrip('/')}{folder.removeprefix(root)}" if "://" in source else folder
            )  # as the user names it
            return [f"{here}/{path.rpartition('/')[2]}" for path in shards]
    hint = f", nor in its folder {split}" if split else "; where it has splits, name one"
    raise DataError(f"no shards (*.tar) in {source}{hint}")


def count_samples(shards: Sequence[str]) -> int:
    """Samples in shards, as `sizes.json` or `__len__` beside them says; otherwise counted, which local shards allow.

    Raises:
        DataError: If a local shard cannot be read.
        LengthError: If the number is unknown.
    """
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
    """Samples with a video in a local shard; only its headers are read."""
    try:
        with tarfile.open(shard) as tar:
            names = [member.name for member in tar if member.isreg()]
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"cannot read the shard {shard}: {error}") from error
    videos = [name for name in names if name.lower().endswith(VIDEO_SUFFIXES)]
    return len({f"{name.rpartition('/')[0]}/{name.rpartition('/')[2].partition('.')[0]}" for name in videos})


def _find_class_list(shards: Sequence[str]) -> ClassList | None:
    """`classes.txt` beside the first shard, or in the folder above."""
    if not shards:
        raise DataError("no shards are given")
    folder = shards[0].rpartition("/")[0]
    for place in (folder, folder.rpartition("/")[0]):
        text = _read_beside(place, "classes.txt") if place or not folder else None
        if text is not None:
            lines = [(number, line.strip()) for number, line in enumerate(io.StringIO(text), 1) if line.strip()]
            return parse_class_list(lines, file=f"{place}/classes.txt")
    return None


def _read_beside(folder: str, name: str) -> str | None:
    """The text of a small file beside shards; None if there is no such file."""
    import fsspec

    files, path = fsspec.core.url_to_fs(f"{folder}/{name}" if folder else name)
    if not files.isfile(path):
        return None
    text: str = files.cat_file(path).decode("utf-8-sig")
    return text
