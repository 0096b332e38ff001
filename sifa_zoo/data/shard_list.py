"""Lists of WebDataset shards: which there are, how many samples they hold, and of which classes."""

from __future__ import annotations

import copy
import io
import json
import os
import tarfile
from collections.abc import Sequence

from sifa_zoo.config import ReadConfig
from sifa_zoo.data.formats.files import VIDEO_SUFFIXES
from sifa_zoo.data.formats.labels import ClassList, name_labels, parse_class_list
from sifa_zoo.data.formats.read import has_shards, read_videos
from sifa_zoo.data.formats.remap import BY_INDEX, place_labels
from sifa_zoo.data.videos import DataError, VideoList

FORMAT = "webdataset"
_TITLE = "WebDataset shards"
_SPLITS = {"train": ("train",), "val": ("val", "validation", "test"), "test": ("test",)}


class LengthError(DataError, TypeError):
    """Nobody knows how many samples there are; a TypeError too, as `list` expects it of what has no length."""


class LibraryError(ImportError, ValueError):
    """A library that shards need is not installed; the message tells how to."""


class ShardList:
    """Shards in the place of a `VideoList`: what is known of their videos before these are read.

    Args:
        shards: As for `find_shards`, or the shards themselves.
        class_names: The classes that labels must belong to, in order. None: those of `classes.txt` beside the shards,
            or in the folder above; it also names labels that are numbers.
        remap: As for `read_videos`.

    Raises:
        DataError: If there are no shards or no class names, or `classes.txt` has others than `class_names`.
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
        if self.class_list is not None and remap != BY_INDEX:
            naming = name_labels(self.class_list.names, self.class_list)
            self.class_names = place_labels(naming, class_names, remap, source=self.class_list.file)[1]
        elif class_names is not None:
            self.class_names = tuple(class_names)
        elif remap == BY_INDEX:
            raise DataError(f"--remap {BY_INDEX} needs weights with class names, which the numbers are places among")
        else:
            raise DataError(f"{self.shards[0]} has no classes.txt beside it; add it, or give the class names")

    def __len__(self) -> int:
        """Samples in all shards: from `sizes.json` or `__len__` beside them, or counted once if they are local.

        Raises:
            LengthError: If none of these is there.
        """
        if self._length is None:
            self._length = count_samples(self.shards)
        return self._length

    def with_classes(self, class_names: Sequence[str]) -> ShardList:
        """The same shards, the same classes in another order."""
        return ShardList(self.shards, class_names, remap=self.remap)

    def as_multi_label(self) -> ShardList:
        """The same shards; the label of a sample becomes booleans `(num_classes,)`, as floats."""
        videos = copy.copy(self)
        videos.multi_label = True
        return videos


def read_videos_or_shards(
    data: str | os.PathLike[str],
    split: str | None = None,
    class_names: Sequence[str] | None = None,
    how: ReadConfig = ReadConfig(),
) -> VideoList | ShardList:
    """What `read_videos` reads, or shards where `data` is such or the format "webdataset"; arguments as there."""
    if how.format != FORMAT and (how.format is not None or not has_shards(data)):
        return read_videos(data, split, class_names, how)
    if how.allow_missing:
        raise ValueError("allow_missing is for lists: shards name no video that they do not hold")
    need_library()
    return ShardList(find_shards(data, split), class_names, remap=how.remap)


def need_library() -> None:
    """Raises a `LibraryError` if shards cannot be read here."""
    try:
        import fsspec  # noqa: F401
        import webdataset  # noqa: F401
    except ImportError as error:
        raise LibraryError("shards need the webdataset library: pip install 'sifa-zoo[shards]'") from error


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
    need_library()
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
            here = f"{name.rstrip('/')}{folder.removeprefix(root)}" if "://" in name else folder  # as the user names it
            return [f"{here}/{path.rpartition('/')[2]}" for path in shards]
    parts = f", nor in its folder {split}" if split else "; where it has splits, name one"
    raise DataError(f"no shards (*.tar) in {name}{parts}")


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
