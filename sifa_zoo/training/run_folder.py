"""What a run folder keeps of its training: settings and facts, the state to resume from, weights, and the log.

Every process of a run must call the functions that save, since each holds a part of the state; only the writer writes.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import pickle
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from sifa_zoo import __version__
from sifa_zoo.config import TrainConfig
from sifa_zoo.datasets.shard_list import ShardList
from sifa_zoo.datasets.videos import DataError, VideoList
from sifa_zoo.evaluation.charts import draw_curve, png
from sifa_zoo.files import BEST, CONFIG, CURVE, LAST, LOG, STATE, check_folder, csv_bytes, is_temporary, write_files
from sifa_zoo.runtime.checkpoint import pack_weights, read_info
from sifa_zoo.runtime.processes import gather, is_writer, rank, world_size
from sifa_zoo.runtime.provenance import data_fingerprint, git_commit, versions
from sifa_zoo.runtime.shard_stream import usable_workers
from sifa_zoo.training.epoch import EpochRow, Position
from sifa_zoo.training.learner import Learner, effective_rates, global_batch
from sifa_zoo.training.run_config import RunConfig
from sifa_zoo.weights.info import WeightsInfo


def open_run(run: Path, *, resume: bool) -> RunConfig | None:
    """The saved settings of a run to resume; None for a new run.

    Raises:
        ValueError: If there is nothing to resume, or a new run would overwrite another.
    """
    check_folder(run)
    if resume:
        if not (run / CONFIG).is_file():
            raise ValueError(f"there is no run to resume in {run} (no {CONFIG}); leave out --resume to start one")
        if (run / LAST).exists() and not (run / STATE).exists():
            raise ValueError(f"{run / STATE} is missing; start a new --output with --checkpoint {run / LAST}")
        try:
            return RunConfig.from_dict(_read_config(run))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{run / CONFIG} is damaged or of another version ({error}); start a new --output"
            ) from error
    if run.is_dir() and any(not is_temporary(path) for path in run.iterdir()):
        if (run / CONFIG).exists():
            raise ValueError(f"{run} holds another run: choose a new --output, or continue that run with --resume")
        raise ValueError(f"{run} is not empty: choose a new --output")
    return None


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
        found["shard_readers"] = max(1, usable_workers(train_videos, train.workers or 0, training=True))
    return {
        **found,
        "protocol": train.evaluation.protocol(config.clip, multi_label=train_videos.multi_label),
        "git_commit": git_commit(),
        "versions": versions(),
    }


def write_config(run: Path, config: RunConfig, facts: Mapping[str, Any], *, left_out: Mapping[str, str]) -> None:
    """Make the run folder with its settings, the facts, and the videos that it leaves out, each with the reason."""
    run.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**dataclasses.asdict(config), **facts, "left_out": left_out}, indent=2)
    write_files({run / CONFIG: f"{text}\n".encode()})


def compare_with_start(run: Path, now: Mapping[str, Any]) -> dict[str, str]:
    """Compare the facts of a resumed run with those that it began with; returns the videos that it left out then.

    Raises:
        ValueError: If the number of processes differs, which would change the global batch.
        DataError: If the number of training videos differs, so that the place in the epoch would mean nothing, or that
            of validation videos, so that epochs could not be compared.
    """
    then = _read_config(run)
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
    left_out: dict[str, str] = then["left_out"]
    return left_out


def restore(run: Path, learner: Learner) -> Position:
    """Load the state that was saved last, if there is one; returns the position that belongs to it."""
    if not (run / STATE).exists():
        return Position()
    try:
        state = torch.load(run / STATE, map_location="cpu", weights_only=True)
        own = state["processes"][rank()]
    except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError, IndexError) as error:
        raise ValueError(
            f"{run / STATE} is damaged or of another version; start a new --output with --checkpoint {run / LAST}"
        ) from error
    learner.load_state_dict(state["learner"])
    _set_random_state(own["random"], learner.device)
    del state["position"]["epoch"]  # the number of rows
    return Position(state["log"], **state["position"], bad=Counter(own["bad"]))


def save_state(run: Path, learner: Learner, position: Position) -> None:
    """Write the training state."""
    state = _state_bytes(learner, position)
    if is_writer():
        write_files({run / STATE: state})


def saved_state(run: Path) -> bytes | None:
    """The training state as last saved, on the writer, for `put_back`."""
    return (run / STATE).read_bytes() if is_writer() and (run / STATE).exists() else None


def put_back(run: Path, state: bytes | None) -> None:
    """Undo `save_state`: restore what was saved before it, or remove the file if there was nothing."""
    if is_writer() and state is None:
        (run / STATE).unlink(missing_ok=True)
    elif state is not None:
        write_files({run / STATE: state})


def save_epoch(
    run: Path, learner: Learner, position: Position, *, config: RunConfig, class_names: tuple[str, ...]
) -> None:
    """Write all of the run folder's files for the epoch that has just ended."""
    rows = position.rows
    info = WeightsInfo(
        arch=config.architecture,
        class_names=class_names,
        clip=config.clip,
        version=__version__,
        model_args=config.model_args,
        epoch=len(rows),
        metrics={name: value for name, value in rows[-1].items() if name.startswith("val_")},
        num_clips=config.train.num_clips,
        precision=config.train.precision,
        num_crops=config.train.num_crops,
        multi_label="val_map" in rows[-1],
    )
    tensors, state = learner.weights(), _state_bytes(learner, position)
    if not is_writer():
        return
    weights = pack_weights(tensors, info)
    files = {run / STATE: state}  # first: resuming reads nothing else
    files |= {run / BEST: weights} if best_row(rows) is rows[-1] else {}
    files |= {run / LOG: csv_bytes(rows), run / CURVE: png(draw_curve(rows))}
    write_files({**files, run / LAST: weights})  # last: shows that all else is there


def is_of_epoch(weights: Path, epoch: int) -> bool:
    """Whether a weights file exists and was written after that epoch."""
    info = read_info(weights) if weights.exists() else None
    return info is not None and info.epoch == epoch


def best_row(rows: Sequence[EpochRow]) -> EpochRow:
    """The epoch that is best by `best_by`; the lower validation loss decides a tie, and NaN ranks last."""
    return max(rows, key=lambda row: (_or_least(row[best_by(row)]), _or_least(-row["val_loss"])))


def best_by(row: EpochRow) -> str:
    """The column that epochs are ranked by: mean average precision if there is one, else top-1."""
    return "val_map" if "val_map" in row else "val_top1"


def is_over(rows: Sequence[EpochRow], train: TrainConfig) -> bool:
    """Whether all epochs are done, or as many as patience allows since the best one."""
    stale = len(rows) - best_row(rows)["epoch"] if rows else 0
    return len(rows) == train.epochs or 0 < train.patience <= stale


def _read_config(run: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((run / CONFIG).read_text(encoding="utf-8"))
    return values


def _or_least(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _state_bytes(learner: Learner, position: Position) -> bytes:
    place = {name: getattr(position, name) for name in ("epoch", "step", "loss", "clips", "skipped", "lr")}
    own = {"bad": dict(position.bad), "random": _random_state(learner.device)}
    state = {"learner": learner.state_dict(), "processes": gather(own), "position": place, "log": position.rows}
    if not is_writer():
        return b""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _random_state(device: torch.device) -> dict[str, Any]:
    """The states of all random generators that training may use in this process."""
    name, keys, *rest = cast(tuple[Any, ...], np.random.get_state(legacy=True))
    states = {"python": random.getstate(), "numpy": (name, keys.tolist(), *rest), "torch": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_random_state(states: dict[str, Any], device: torch.device) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
