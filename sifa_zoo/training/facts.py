"""What follows from the settings of a run, and what a resumed run must find as it was."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sifa_zoo.datasets.shard_list import ShardList
from sifa_zoo.datasets.videos import DataError, VideoList
from sifa_zoo.files import CONFIG
from sifa_zoo.runtime.processes import world_size
from sifa_zoo.runtime.provenance import data_fingerprint, git_commit, versions
from sifa_zoo.runtime.shard_batches import usable_workers
from sifa_zoo.training.optim import effective_rates, global_batch
from sifa_zoo.training.run_config import RunConfig


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
