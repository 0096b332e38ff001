"""A repository's `config.json` in timm's form: which model, its clips, and what is stated of the weights beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sifa_zoo.config import ClipConfig
from sifa_zoo.weights.hub import CONFIG, MismatchError
from sifa_zoo.weights.info import WeightsInfo

_KINDS = {  # what must be where something is stated
    "architecture": (str, "a string"),
    "pretrained_cfg": (dict, "an object"),
    "sifa_zoo": (dict, "an object"),
    "model_args": (dict | None, "an object"),
    "label_names": (list | None, "a list"),
    "pretrained_cfg.input_size": (list, "a list"),
    "pretrained_cfg.label_names": (list | None, "a list"),
    "sifa_zoo.sha256": (str | None, "a string"),
    "sifa_zoo.logits": (list | None, "a list"),
}
_WAY_OUT = "correct it, or load the file with checkpoint_path="


def read_config(path: Path, name: str) -> dict[str, Any]:
    """The object in a `config.json`, with nothing of another kind than is read later.

    Args:
        path: The file.
        name: What the user calls it, for messages.

    Raises:
        MismatchError: If it is none, or names no model.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MismatchError(f"{name}: {CONFIG} is not JSON ({error}); {_WAY_OUT}") from error
    if not isinstance(config, dict) or "architecture" not in config:
        raise MismatchError(f"{name}: {CONFIG} does not name a model of this project: it has no 'architecture'")
    for key, (kind, wanted) in _KINDS.items():
        room, _, inner = key.rpartition(".")
        values = config.get(room, {}) if room else config
        if inner in values and not isinstance(values[inner], kind):
            found = json.dumps(values[inner])[:60]
            raise MismatchError(f"{name}: in {CONFIG}, {key} must be {wanted}, got {found}; {_WAY_OUT}")
    return config


def info_of_config(config: dict[str, Any], name: str) -> WeightsInfo:
    """What a `config.json` says about the weights beside it.

    Raises:
        MismatchError: If it does not say how clips are cut.
    """
    cfg = config.get("pretrained_cfg", {})
    labels = tuple(config.get("label_names") or cfg.get("label_names") or ())
    known = {key: cfg[key] for key in ("num_frames", "frame_stride", "fps", "crop_pct", "mean", "std") if key in cfg}
    try:
        clip = ClipConfig(img_size=cfg["input_size"][-1], **known)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise MismatchError(f"{name}: {CONFIG} does not say how clips are cut ({error!r}); {_WAY_OUT}") from error
    return WeightsInfo(config["architecture"], labels, clip, version="", model_args=config.get("model_args") or {})
