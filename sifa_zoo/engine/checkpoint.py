"""The run folder: weights that say what they are, and files that neither a full disk nor a kill can destroy.

`best.safetensors` and `last.safetensors` hold in their metadata, under the key `sifa_zoo`, a JSON object with all that
evaluation and prediction need: the model's name and arguments, class names, clip settings.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from sifa_zoo.config import ClipConfig
from sifa_zoo.registry import WeightsError, create_model, is_model, load_weights, read_weights

BEST = "best.safetensors"
LAST = "last.safetensors"
STATE = "state.pt"
_METADATA_KEY = "sifa_zoo"


@dataclass(frozen=True)
class WeightsInfo:
    """What a weights file says about itself.

    `num_clips` and `precision` are those of the evaluation during training, which gave `metrics`.
    """

    arch: str
    class_names: tuple[str, ...]
    clip: ClipConfig
    version: str
    model_args: dict[str, Any] = field(default_factory=dict)
    epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    num_clips: int = 1
    precision: str = "fp32"

    def to_json(self) -> str:
        """The JSON object of the metadata."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WeightsInfo:
        """The inverse of `to_json`; keys of a later version are left out."""
        known = {f.name for f in dataclasses.fields(cls)}
        values = {key: value for key, value in json.loads(text).items() if key in known}
        values |= {"clip": ClipConfig(**values["clip"]), "class_names": tuple(values["class_names"])}
        return cls(**values)


def weights_bytes(model: nn.Module, info: WeightsInfo) -> bytes:
    """The model's weights as a safetensors file."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return save(tensors, {_METADATA_KEY: info.to_json()})  # one key: their order, and so the bytes, would vary


def weights_file(run: str | os.PathLike[str]) -> Path:
    """The weights of a run folder (the best), or the file itself.

    Raises:
        ValueError: If there are none.
    """
    path = Path(run)
    if path.is_dir():
        if not (path / BEST).is_file():
            raise ValueError(f"{path} holds no {BEST}; expected the output folder of `sifa-zoo finetune`")
        return path / BEST
    if not path.is_file():
        raise ValueError(f"{path}: no such run folder or weights file")
    return path


def read_info(run: str | os.PathLike[str]) -> WeightsInfo | None:
    """What the weights of a run folder or file say about themselves; None if they come from elsewhere.

    Raises:
        ValueError: If there are no weights, or the file is no safetensors file.
    """
    path = weights_file(run)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file, or it is damaged: {error}") from error
    return WeightsInfo.from_json(metadata[_METADATA_KEY]) if _METADATA_KEY in metadata else None


def load_run(run: str | os.PathLike[str], device: torch.device | str | None = None) -> nn.Module:
    """The model of a run in eval mode, its `pretrained_cfg` filled with class names and clip settings.

    Args:
        run: A run folder (its best weights), a weights file of one, or the name of a model with weights.
        device: Where to put the model; the CPU by default.

    Raises:
        ValueError: If there is no such run or name, or the file does not say what it holds.

    Example:
        >>> model = load_run("runs/mine")  # doctest: +SKIP
    """
    if not Path(run).exists() and is_model(str(run).partition(".")[0]):
        return create_model(str(run), pretrained=True).to(device or "cpu").eval()
    info = read_info(run)
    if info is None:
        raise ValueError(f"{run} was not written by `sifa-zoo finetune`: it names no model, classes and clip settings")
    model = create_model(
        info.arch,
        num_classes=len(info.class_names),
        num_frames=info.clip.num_frames,
        img_size=info.clip.img_size,
        **info.model_args,
    )
    if not load_weights(model, read_weights(weights_file(run)), source=str(run)):
        raise WeightsError(f"{run} has no head for its {len(info.class_names)} classes: the file is damaged")
    describe(model, info)
    return model.to(device or "cpu").eval()


def describe(model: nn.Module, info: WeightsInfo) -> None:
    """Write class names, clip and evaluation settings into the model's `pretrained_cfg`."""
    cfg = {**model_cfg(model), **info.clip.to_dict()}
    size = cfg.pop("img_size")
    cfg |= {"input_size": (cfg["input_size"][0], size, size), "label_names": info.class_names}
    cfg |= {"num_clips": info.num_clips, "precision": info.precision}
    model.pretrained_cfg = cfg  # type: ignore[assignment]


def model_cfg(model: nn.Module) -> dict[str, Any]:
    """The model's `pretrained_cfg`, for the type checker a dictionary."""
    return cast(dict[str, Any], model.pretrained_cfg)


def clip_config(model: nn.Module) -> ClipConfig:
    """The clip settings that a model was trained with, from its `pretrained_cfg`."""
    cfg = model_cfg(model)
    names = {f.name for f in dataclasses.fields(ClipConfig)}
    return ClipConfig(img_size=cfg["input_size"][-1], **{key: cfg[key] for key in names & cfg.keys()})


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write files so that each is either the old one or the new one, whatever happens: beside, synced, then renamed.

    Nothing is renamed before all are written, and then in the order given: the first rename is the commit.

    Raises:
        OSError: If they cannot be written; the old files are still there then, and no temporary file.
    """
    beside = {path: path.with_name(f".{path.name}.tmp") for path in contents}
    try:
        for path, content in contents.items():
            with open(beside[path], "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path in contents:
            os.replace(beside[path], path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "no space left on the disk" if full else error.strerror
        raise OSError(error.errno, f"{reason} while saving {path}; what was saved before is untouched") from error
    finally:
        for path in beside.values():
            path.unlink(missing_ok=True)
