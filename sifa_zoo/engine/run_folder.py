"""What a run folder keeps of its training: settings, weights, the state to resume from, and the log."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from torch.optim import Optimizer

from sifa_zoo import __version__
from sifa_zoo.config import RunConfig, WeightsInfo
from sifa_zoo.engine.checkpoint import LAST, STATE, read_info, weights_bytes, write_files
from sifa_zoo.engine.log import draw_curve, log_csv
from sifa_zoo.engine.prepare import CONFIG
from sifa_zoo.weights import BEST

Row = dict[str, Any]


def metric(row: Row) -> str:
    """The column by which epochs are compared: mean average precision if there is one, else top-1."""
    return "val_map" if "val_map" in row else "val_top1"


def best_row(rows: Sequence[Row]) -> Row:
    """The epoch with the highest `metric`; of equals the one with the lowest validation loss."""
    return max(rows, key=lambda row: (row[metric(row)], -row["val_loss"]))


def write_config(run: Path, config: RunConfig) -> None:
    """Make the run folder with its settings and the versions in use."""
    versions = {"sifa_zoo": __version__, "torch": torch.__version__, "timm": timm.__version__}
    versions["python"] = platform.python_version()
    run.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**dataclasses.asdict(config), "versions": versions}, indent=2)
    write_files({run / CONFIG: f"{text}\n".encode()})


def restore(run: Path, model: nn.Module, optimizer: Optimizer) -> list[Row]:
    """Load weights and optimiser of the last finished epoch, if there is one; returns the log so far."""
    if not (run / STATE).exists():
        return []
    try:
        state = torch.load(run / STATE, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{run / STATE} is damaged; start a new --output with --checkpoint {run / LAST}") from error
    rows: list[Row] = state["log"]
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return rows


def is_of_epoch(weights: Path, epoch: int) -> bool:
    """Whether a weights file is there and was written after that epoch."""
    info = read_info(weights) if weights.exists() else None
    return info is not None and info.epoch == epoch


def save(
    run: Path,
    model: nn.Module,
    optimizer: Optimizer,
    *,
    rows: list[Row],
    config: RunConfig,
    class_names: tuple[str, ...],
) -> None:
    """Write the run folder's files for the epoch that has just ended."""
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
    weights = weights_bytes(model, info)
    state = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "log": rows}, state)
    files = {run / STATE: state.getvalue()}  # first: resuming reads nothing else
    files |= {run / BEST: weights} if best_row(rows) is rows[-1] else {}
    write_files({**files, run / LAST: weights, run / "log.csv": log_csv(rows), run / "curve.png": draw_curve(rows)})
