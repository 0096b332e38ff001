"""The settings of a run: what is given, completed by what it builds on."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.optim import list_optimizers

from sifa_zoo.config import ClipConfig, ReadConfig, TrainConfig
from sifa_zoo.datasets.formats.labels import BY_INDEX
from sifa_zoo.registry.names import is_model
from sifa_zoo.runtime.checkpoint import read_info, usual_clip
from sifa_zoo.runtime.devices import usual_precision, usual_workers
from sifa_zoo.training.recipes import Recipe, find_recipe
from sifa_zoo.weights.finding import SCHEMES

_DECIDED_ELSEWHERE = {"num_classes", "num_frames", "img_size", "drop_rate", "pretrained", "checkpoint_path"}
_CHANGEABLE = ("workers", "save_every", "save_minutes")  # settings that do not affect the result of a run


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a run: `config.json` in the run folder holds it, and `--resume` compares it."""

    data: str
    model: str
    clip: ClipConfig
    train: TrainConfig
    reading: ReadConfig = ReadConfig()
    val: str | None = None
    model_args: dict[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    pretrained: bool = False
    recipe: str | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunConfig:
        """The inverse of `dataclasses.asdict`; other keys are ignored."""
        known = {f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values}
        parts = {"clip": ClipConfig, "train": TrainConfig, "reading": ReadConfig}
        return cls(**{**known, **{name: config(**known[name]) for name, config in parts.items()}})

    @property
    def architecture(self) -> str:
        """The name of the model, without the tag of weights that training starts from."""
        return self.model.partition(".")[0]

    def flat(self) -> dict[str, Any]:
        """One entry per setting, including those of `clip`, `train` and `reading` under their own names."""
        values = dataclasses.asdict(self)
        reading, clip, train = (values.pop(name) for name in ("reading", "clip", "train"))
        return {**values, **reading, **clip, **train}


def settle(given: Mapping[str, Any], *, saved: RunConfig | None, device: torch.device | str = "cpu") -> RunConfig:
    """The settings of a run: those given (not None), completed by the saved ones or by recipe, checkpoint and model.

    What is left to the machine becomes what suits this device; a resumed run keeps what it began with.

    Raises:
        ValueError: If a setting is missing or contradicts another, or a resumed run's differs from the saved one.
    """
    _refuse_name_of_weights(given["checkpoint"])
    paths = {name: given[name] for name in ("data", "val", "checkpoint") if given[name] is not None}
    given = {**given, **{name: _absolute(os.fspath(path)) for name, path in paths.items()}}
    reading = _override(given["reading"], saved.reading if saved else ReadConfig())
    if reading.remap not in (None, BY_INDEX):
        reading = dataclasses.replace(reading, remap=os.path.abspath(reading.remap))
    given |= {"reading": reading}
    if given["model_args"]:
        given |= {"model_args": _as_saved(given["model_args"])}
    config = _settle_resumed(given, saved) if saved else _settle_new(given)
    return dataclasses.replace(config, train=_for_machine(config.train, device))


def _for_machine(train: TrainConfig, device: torch.device | str) -> TrainConfig:
    precision = usual_precision(device) if train.precision == "auto" else train.precision
    workers = usual_workers(device) if train.workers is None else train.workers
    return dataclasses.replace(train, precision=precision, workers=workers)


def _settle_new(given: dict[str, Any]) -> RunConfig:
    checkpoint = given["checkpoint"]
    info = read_info(checkpoint) if checkpoint else None
    model = _need_model(given["model"] or (info.arch if info else None))
    pretrained = given["pretrained"] or "." in model
    if pretrained and checkpoint:
        raise ValueError(
            f"training starts from the weights of {model} or from a checkpoint, got both; leave out one of them"
        )
    if info and info.arch != model:
        raise ValueError(f"{checkpoint} holds weights of {info.arch}, not of {model}; leave out the model")
    recipe = find_recipe(given["recipe"]) if given["recipe"] else Recipe()
    train = _override(given["train"], recipe.train)
    _check_optimisation(train)
    clip = _override(recipe.clip, info.clip if info else usual_clip(model, pretrained))
    clip = _override(given["clip"], clip)
    model_args = given["model_args"] or (info.model_args if info else {})
    chosen = {"model": model, "pretrained": pretrained, "clip": clip, "train": train, "model_args": model_args}
    return RunConfig(**{name: value for name, value in {**given, **chosen}.items() if value is not None})


def _settle_resumed(given: dict[str, Any], saved: RunConfig) -> RunConfig:
    given = {name: value for name, value in given.items() if value}
    train = _override(given.get("train"), saved.train)
    if train.precision == "auto":
        train = dataclasses.replace(train, precision=saved.train.precision)
    nested = {"clip": _override(given.get("clip"), saved.clip), "train": train}
    config = RunConfig(**{**vars(saved), **given, **nested})
    old, new = saved.flat(), config.flat()
    names = [name for name in old if old[name] != new[name] and name not in _CHANGEABLE]
    if names:
        changed = ", ".join(f"{name} is {old[name]}, not {new[name]}" for name in names)
        raise ValueError(f"a resumed run keeps its settings: {changed}; start a new --output to change them")
    return config


def _refuse_name_of_weights(checkpoint: str | os.PathLike[str] | None) -> None:
    name = os.fspath(checkpoint or "")
    if is_model(name.partition(".")[0]) and not os.path.exists(name):
        raise ValueError(f"the checkpoint must be a run or a file, got {name!r}: give weights by name as the model")


def _absolute(name: str) -> str:
    """A path made absolute; names that are not paths stay as they are."""
    is_path = not name.startswith((*SCHEMES, "pipe:", "{")) and "://" not in name
    return os.path.abspath(name) if is_path else name


def _override(given: Any, base: Any) -> Any:
    """`given` if it is a whole dataclass, or else `base` with the fields that `given` names."""
    return given if dataclasses.is_dataclass(given) else dataclasses.replace(base, **(given or {}))


def _as_saved(model_args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the model's constructor as JSON keeps them, so that a resumed run can compare them."""
    if decided := _DECIDED_ELSEWHERE & model_args.keys():
        raise ValueError(
            f"model_args must not name {', '.join(sorted(decided))}: the data or other settings decide that"
        )
    try:
        saved: dict[str, Any] = json.loads(json.dumps(model_args))
    except (TypeError, ValueError) as error:
        raise ValueError(f"model_args must be values that JSON can hold, got {model_args} ({error})") from error
    return saved


def _need_model(model: str | None) -> str:
    if not model:
        raise ValueError("the model is missing: name one of `sifa-zoo list`, or give the checkpoint of a run")
    if model.startswith(SCHEMES):
        raise ValueError(f"the model must be an architecture, got {model!r}: give weights like these as the checkpoint")
    return model


def _check_optimisation(train: TrainConfig) -> None:
    """Refuse an optimiser that timm does not have, and warn of a warm-up that does not end."""
    known = [str(name) for name in list_optimizers()]
    if train.opt not in known:
        nearest = difflib.get_close_matches(train.opt, known, n=3, cutoff=0.3) or ["adamw", "sgd"]
        raise ValueError(f"opt must be one of timm's optimisers, got {train.opt!r}; did you mean {', '.join(nearest)}?")
    if train.warmup_epochs > train.epochs:
        print(
            f"warning: the warm-up of {train.warmup_epochs:g} epochs is longer than the run of {train.epochs}, which "
            "never reaches its learning rate; set --warmup-epochs",
            file=sys.stderr,
        )
