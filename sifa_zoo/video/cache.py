"""Keeps indices in memory and on disk, for as long as the file has the same path, size and modification time.

On disk each video has a small file of its own, a few KB for ten seconds of video. It is written under another name and
then renamed, so any number of processes may write it at once: the last one wins, and all write the same. A damaged
index, or one made by another version of FFmpeg, is not used but made anew. Environment:

    SIFA_ZOO_CACHE      indices are kept in its folder `index`; by default $XDG_CACHE_HOME/sifa_zoo or ~/.cache/sifa_zoo
    SIFA_ZOO_INDEX=off  nothing is read from disk or written to it
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
import warnings
import zlib
from functools import lru_cache
from pathlib import Path

import av
import numpy as np

from sifa_zoo.video.container import File, find_file
from sifa_zoo.video.decoder_settings import DecoderSettings
from sifa_zoo.video.index import Index
from sifa_zoo.video.scaling import Display
from sifa_zoo.video.scan import build_index

_VERSION = 4  # of what is stored; indices of other versions are not read
_ARRAYS = ("positions", "sizes", "checksums", "keys", "key_frames", "frame_packets", "frame_times")
_MEMORY_SIZE = 8192  # about 10 KB each for clips of ten seconds


def find_index(file: File) -> Index:
    """The index of a file: from memory, from disk, or built now."""
    return _find_bytes(file) if file.data is not None else _find(file)


def save_index(file: File, index: Index) -> None:
    """Writes an index to disk, if it knows which packet gives which frame."""
    if file.data is not None or not index.known or not _is_on():
        return
    path = _path(file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as beside:
            try:
                beside.write(_pack(file, index))
                beside.close()
                os.replace(beside.name, path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(beside.name)
                raise
    except OSError as error:
        _warn_unwritable(str(cache_folder()), str(error.strerror))


def is_cached(path: str | os.PathLike[str]) -> bool:
    """Whether the file, as it is now, has an index on disk, because it was read before.

    Raises:
        VideoError: If there is no such file.
    """
    return _load(find_file(path)) is not None


def forget(path: str | os.PathLike[str]) -> None:
    """Removes the index of a file from disk, and all indices from memory.

    Raises:
        VideoError: If there is no such file.
    """
    with contextlib.suppress(OSError):
        _path(find_file(path)).unlink(missing_ok=True)
    forget_memory()


def forget_memory() -> None:
    _find.cache_clear()
    _find_bytes.cache_clear()


def cache_folder() -> Path:
    """The folder of the indices on disk."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "sifa_zoo")
    return Path(os.environ.get("SIFA_ZOO_CACHE") or default) / "index"


@lru_cache(maxsize=_MEMORY_SIZE)
def _find(file: File) -> Index:
    index = _load(file)
    if index is None:
        index = build_index(file)
        save_index(file, index)
    return index


@lru_cache(maxsize=1)  # one, so that asking for the length and then for frames reads the packets once
def _find_bytes(file: File) -> Index:
    return build_index(file)


def _is_on() -> bool:
    return os.environ.get("SIFA_ZOO_INDEX", "").lower() not in ("off", "0", "no", "false")


def _path(file: File) -> Path:
    name = hashlib.sha256(os.fsencode(os.path.abspath(file.path))).hexdigest()[:40]
    return cache_folder() / name[:3] / name[3:]  # 4,096 folders: a million videos are 250 files in each


def _identity(file: File) -> list:
    versions = [list(av.library_versions[name]) for name in ("libavformat", "libavcodec")]
    return [_VERSION, versions, os.path.abspath(file.path), file.size, file.mtime_ns]


def _load(file: File) -> Index | None:
    if not _is_on():
        return None
    try:
        return _unpack(_path(file).read_bytes(), file)
    except (OSError, ValueError, KeyError, TypeError, zlib.error):
        return None


def _pack(file: File, index: Index) -> bytes:
    """A line of JSON, then the arrays as differences between neighbours; zlib compresses it all and notices damage."""
    arrays = [getattr(index, name) for name in _ARRAYS]
    plain = {name: value for name, value in vars(index).items() if name not in _ARRAYS}
    plain |= {name: dataclasses.asdict(plain[name]) for name in ("decoder", "display")}
    head = {"identity": _identity(file), "lengths": [len(array) for array in arrays], "index": plain}
    steps = [np.diff(array, prepend=0) for array in arrays]
    return zlib.compress(json.dumps(head).encode() + b"\n" + np.concatenate(steps).astype("<i8").tobytes(), 1)


def _unpack(data: bytes, file: File) -> Index | None:
    head, _, body = zlib.decompress(data).partition(b"\n")
    head = json.loads(head)
    if head["identity"] != _identity(file):
        return None
    steps = np.split(np.frombuffer(body, "<i8"), np.cumsum(head["lengths"])[:-1])
    arrays = {name: np.cumsum(step, dtype=np.int64) for name, step in zip(_ARRAYS, steps, strict=True)}
    plain = head["index"]
    plain |= {name: tuple(plain[name]) for name in ("stored_size", "time_base")}
    plain["decoder"] = DecoderSettings(**plain["decoder"])
    plain["display"]["crop"] = tuple(plain["display"]["crop"])
    plain["display"] = Display(**plain["display"])
    return Index(**(plain | arrays))


@lru_cache
def _warn_unwritable(folder: str, reason: str) -> None:
    warnings.warn(
        f"indices of videos are not kept, {folder} cannot be written ({reason}); "
        "set SIFA_ZOO_CACHE to a folder that can, or SIFA_ZOO_INDEX=off",
        stacklevel=2,
    )
