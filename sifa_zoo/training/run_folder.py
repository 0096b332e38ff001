"""What a run folder keeps of its training: settings, weights, the state to resume from, and the log.

Every process of a run must call the functions that save, since each holds a part of the state; only the writer writes.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import pickle
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from sifa_zoo import __version__
from sifa_zoo.evaluation.charts import draw_curve, png
from sifa_zoo.files import BEST, CONFIG, CURVE, LAST, LOG, STATE, csv_bytes, write_files
from sifa_zoo.runtime.checkpoint import pack_weights, read_info
from sifa_zoo.runtime.processes import gather, is_writer, rank
from sifa_zoo.training.epoch import Position
from sifa_zoo.training.learner import Learner
from sifa_zoo.training.log import EpochRow
from sifa_zoo.training.run_config import RunConfig
from sifa_zoo.weights.info import WeightsInfo


def write_config(run: Path, config: RunConfig, facts: Mapping[str, Any]) -> None:
    """Make the run folder with its settings and the facts of `provenance.facts`."""
    run.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**dataclasses.asdict(config), **facts}, indent=2)
    write_files({run / CONFIG: f"{text}\n".encode()})


def restore(run: Path, learner: Learner) -> tuple[list[EpochRow], Position]:
    """Load the state that was saved last, if there is one; returns the log and the position that belong to it."""
    if not (run / STATE).exists():
        return [], Position()
    try:
        state = torch.load(run / STATE, map_location="cpu", weights_only=True)
        own = state["processes"][rank()]
    except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError, IndexError) as error:
        raise ValueError(
            f"{run / STATE} is damaged or of another version; start a new --output with --checkpoint {run / LAST}"
        ) from error
    learner.load_state_dict(state["learner"])
    _set_random_state(own["random"], learner.device)
    return state["log"], Position(**state["position"], bad=Counter(own["bad"]))


def is_of_epoch(weights: Path, epoch: int) -> bool:
    """Whether a weights file exists and was written after that epoch."""
    info = read_info(weights) if weights.exists() else None
    return info is not None and info.epoch == epoch


def save_state(run: Path, learner: Learner, *, rows: list[EpochRow], position: Position) -> None:
    """Write the training state."""
    state = _state_bytes(learner, rows=rows, position=position)
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
    run: Path,
    learner: Learner,
    *,
    rows: list[EpochRow],
    position: Position,
    config: RunConfig,
    class_names: tuple[str, ...],
) -> None:
    """Write all of the run folder's files for the epoch that has just ended."""
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
    tensors, state = learner.weights(), _state_bytes(learner, rows=rows, position=position)
    if not is_writer():
        return
    weights = pack_weights(tensors, info)
    files = {run / STATE: state}  # first: resuming reads nothing else
    files |= {run / BEST: weights} if best_row(rows) is rows[-1] else {}
    files |= {run / LOG: csv_bytes(rows), run / CURVE: png(draw_curve(rows))}
    write_files({**files, run / LAST: weights})  # last: shows that all else is there


def best_row(rows: Sequence[EpochRow]) -> EpochRow:
    """The epoch that is best by `best_by`; the lower validation loss decides a tie, and NaN ranks last."""
    return max(rows, key=lambda row: (_or_least(row[best_by(row)]), _or_least(-row["val_loss"])))


def best_by(row: EpochRow) -> str:
    """The column that epochs are ranked by: mean average precision if there is one, else top-1."""
    return "val_map" if "val_map" in row else "val_top1"


def _or_least(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _state_bytes(learner: Learner, *, rows: list[EpochRow], position: Position) -> bytes:
    place = dataclasses.asdict(position)
    own = {"bad": dict(place.pop("bad")), "random": _random_state(learner.device)}
    state = {"learner": learner.state_dict(), "processes": gather(own), "position": place, "log": rows}
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
