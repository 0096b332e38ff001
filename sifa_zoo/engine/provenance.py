"""What a result came from: versions, the commit of this package, and a fingerprint of the videos."""

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
from sifa_zoo.data.videos import VideoList


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    ours = {"sifa_zoo": __version__, "torch": torch.__version__, "timm": timm.__version__}
    return {**ours, "python": platform.python_version()}


def git_commit() -> str | None:
    """The commit that this package is a checkout of, ending in `-dirty` if files differ from it; None elsewhere."""
    root = Path(sifa_zoo.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", os.fspath(root), "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):  # no git here, or the checkout is another user's
        return None
    return found.stdout.strip()


def data_fingerprint(*lists: VideoList, root: str | os.PathLike[str]) -> str:
    """16 hexadecimal digits that change with any video's name below `root`, its size in bytes, or its labels.

    The order of the videos and the place of `root` do not count; neither does what is inside the files, which would
    take as long to read as an epoch.
    """
    rows = []
    for part, videos in enumerate(lists):
        for path, label in zip(videos.paths, videos.labels, strict=True):
            labels = np.flatnonzero(label) if videos.multi_label else [label]
            names = sorted(videos.class_names[i] for i in labels)
            rows.append(f"{part}\t{os.path.relpath(path, root)}\t{_size(path)}\t{names}")
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()[:16]


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:  # a member of a shard, or a video that will be named when it is read
        return -1
