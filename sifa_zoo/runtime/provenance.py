"""Where a result comes from: versions, the commit of this package, and the videos."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from pathlib import Path

import numpy as np
import timm
import torch

import sifa_zoo
from sifa_zoo import __version__
from sifa_zoo.datasets.shard_list import ShardList
from sifa_zoo.datasets.videos import VideoList


def versions() -> dict[str, str]:
    """Versions of the software that a result depends on."""
    return {
        "sifa_zoo": __version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "python": platform.python_version(),
    }


def git_commit() -> str | None:
    """The commit that this package is checked out at, with `-dirty` if files differ from it; None elsewhere."""
    root = Path(sifa_zoo.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", os.fspath(root), "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):  # no git here, or the checkout is another user's
        return None
    return found.stdout.strip()


def data_fingerprint(*lists: VideoList | ShardList, root: str | os.PathLike[str]) -> str:
    """16 hexadecimal digits that change with any video's name below `root`, its size in bytes, or its labels.

    For shards, it covers their names and sizes, the number of samples and the classes.

    The order of the videos and the location of `root` do not matter; nor does the content of the files, which would
    take as long to read as an epoch.
    """
    rows = []
    for split, videos in enumerate(lists):
        if isinstance(videos, ShardList):
            rows.append(f"{split}\t{len(videos)}\t{videos.class_names}")
            rows += [f"{split}\t{_below(shard, root)}\t{_size(shard)}" for shard in videos.shards]
            continue
        for path, label in zip(videos.paths, videos.labels, strict=True):
            labels = np.flatnonzero(label) if videos.multi_label else [label]
            names = sorted(videos.class_names[i] for i in labels)
            rows.append(f"{split}\t{_below(path, root)}\t{_size(path)}\t{names}")
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()[:16]


def _below(path: str, root: str | os.PathLike[str]) -> str:
    return path if "://" in path else os.path.relpath(path, root)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:  # a member of a shard, or a video that will be named when it is read
        return -1
