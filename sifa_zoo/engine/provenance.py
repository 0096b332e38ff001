"""Where a result comes from: effective settings, versions, the commit of this package, and the videos."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

import sifa_zoo
from sifa_zoo import __version__
from sifa_zoo.config import RunConfig
from sifa_zoo.data.shard_list import ShardList
from sifa_zoo.data.videos import DataError, VideoList
from sifa_zoo.engine.distributed import world_size
from sifa_zoo.engine.optim import effective_rates, global_batch
from sifa_zoo.engine.shard_loader import usable_workers
from sifa_zoo.run_files import CONFIG


def facts(config: RunConfig, videos: Sequence[VideoList | ShardList], *, device: torch.device) -> dict[str, Any]:
    """What follows from the settings of a run with these videos (training, validation) on this machine."""
    train, replicas = config.train, world_size()
    rates = effective_rates(train, num_replicas=replicas)
    train_videos, val_videos = videos
    found: dict[str, Any] = {
        "train_videos": len(train_videos),
        "val_videos": len(val_videos),
        "missing_videos": train_videos.num_missing + val_videos.num_missing,
        "num_classes": len(train_videos.class_names),
        "data_format": train_videos.format,
        "data_fingerprint": data_fingerprint(*videos, root=config.data),
        "num_processes": replicas,
        "global_batch": global_batch(train, num_replicas=replicas),
        "effective_lr": rates.lr,
        "effective_min_lr": rates.min_lr,
        "device": str(device),
    }
    if isinstance(train_videos, ShardList):
        found["shard_readers"] = max(1, usable_workers(train_videos, train.workers, training=True))
    return {
        **found,
        "protocol": train.evaluation.protocol(config.clip, multi_label=train_videos.multi_label),
        "git_commit": git_commit(),
        "versions": versions(),
    }


def check_resumable(run: Path, now: Mapping[str, Any]) -> None:
    """Compare the facts of a resumed run with those that it began with.

    Raises:
        ValueError: If the number of processes differs, which would change the global batch.
        DataError: If the number of training videos differs, so that the place in the epoch would mean nothing, or that
            of validation videos, so that epochs could not be compared.
    """
    then = json.loads((run / CONFIG).read_text(encoding="utf-8"))
    if (was := then["num_processes"]) != now["num_processes"]:
        raise ValueError(f"the run in {run} has {was} processes, not {now['num_processes']}: resume it with {was}")
    for split, kind in (("train", "training"), ("val", "validation")):
        is_now = now[f"{split}_videos"]
        if (was := then[f"{split}_videos"]) != is_now:
            raise DataError(
                f"the run in {run} has {was} {kind} videos, not {is_now}: bring back missing ones (with "
                "--skip-bad, an empty file of the same name will do), remove added ones, or start a new --output"
            )
    if (was := then.get("shard_readers")) != now.get("shard_readers"):
        print(
            f"warning: the run in {run} has {was} readers of shards, not {now.get('shard_readers')}: the order "
            "changes, so in an interrupted epoch some videos come twice and others not at all",
            file=sys.stderr,
        )
    if then.get("data_fingerprint") != now["data_fingerprint"]:
        print(f"warning: the videos are not those that the run in {run} began with", file=sys.stderr)


def left_out_before(run: Path) -> dict[str, str]:
    """The videos that a run left out when it began, each with the line that says why."""
    left_out: dict[str, str] = json.loads((run / CONFIG).read_text(encoding="utf-8"))["left_out"]
    return left_out


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
