"""Weights that describe themselves: packed into a file, loaded as a model; and the clip settings of models.

The metadata of the safetensors file hold, under the key `sifa_zoo`, a JSON object with all that evaluation and
prediction need: the model's name and arguments, class names, clip settings.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, cast

import torch
from safetensors.torch import save
from torch import Tensor, nn

from sifa_zoo.config import ClipConfig
from sifa_zoo.registry.create import create_model
from sifa_zoo.registry.names import TIMM
from sifa_zoo.registry.trunks import packaged_entry
from sifa_zoo.weights.finding import find_entry, locate_weights
from sifa_zoo.weights.hub import file_sha256
from sifa_zoo.weights.info import METADATA_KEY, WeightsInfo


def pack_weights(state_dict: Mapping[str, Tensor], info: WeightsInfo) -> bytes:
    """A state_dict as a safetensors file with that description."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    return save(tensors, {METADATA_KEY: info.to_json()})  # one key: several would vary in order, and so in bytes


def read_info(run: str | os.PathLike[str]) -> WeightsInfo | None:
    """The description stored with weights, named as for `locate_weights`; None if they are not of this package.

    Raises:
        WeightsError: If there are no weights, or the file is not a safetensors file.
    """
    return locate_weights(run).info


def load_run(run: str | os.PathLike[str], device: torch.device | str | None = None) -> nn.Module:
    """The model of a run in eval mode, its `pretrained_cfg` filled with class names and clip settings.

    Args:
        run: A run folder (its best weights), one of its weights files, or a name of weights as for `create_model`.
        device: Where to put the model; the CPU by default.

    Raises:
        ValueError: If there is no such run or name, or the weights have no class names (an untrained head).

    Example:
        >>> model = load_run("runs/mine")  # doctest: +SKIP
    """
    found = None if _names_trunk(run) else locate_weights(run)
    if found and found.info is None:
        raise ValueError(f"{run} was not written by `sifa-zoo finetune`: it names no model, classes or settings")
    if found and found.info and os.path.exists(run):
        model = create_model(found.info.arch, checkpoint_path=found.path)
    else:
        model = create_model(os.fspath(run), pretrained=True)
    if not model_cfg(model).get("label_names"):
        raise ValueError(f"{run} has no class names because its head was never trained on videos; fine-tune it first")
    return model.to(device or "cpu").eval()


def _names_trunk(run: str | os.PathLike[str]) -> bool:
    return os.fspath(run).startswith(TIMM) and not os.path.exists(run)


def weights_sha256(run: str | os.PathLike[str]) -> str | None:
    """The hash of the weights of a run, a file or a name; None of an image model of timm."""
    return None if _names_trunk(run) else file_sha256(locate_weights(run).path)


def model_cfg(model: nn.Module) -> dict[str, Any]:
    """The model's `pretrained_cfg`, typed as a dictionary."""
    return cast(dict[str, Any], model.pretrained_cfg)


def clip_config(model: nn.Module) -> ClipConfig:
    """The clip settings that a model was trained with, at its present input size and number of frames."""
    cfg = model_cfg(model)
    names = {f.name for f in dataclasses.fields(ClipConfig)}
    known = {key: cfg[key] for key in names & cfg.keys()}
    height, width = cast(Any, model).img_size
    if height != width:
        raise ValueError(f"clips are square, but the input size is {(height, width)}; give set_input_size an int")
    return ClipConfig(**{**known, "img_size": height, "num_frames": model.num_frames})


def usual_clip(model: str, pretrained: bool = False) -> ClipConfig:
    """The clip settings that a model, or its weights, would usually have."""
    if pretrained and not model.startswith(TIMM):
        return find_entry(model)[1].clip_config
    if pretrained and (entry := packaged_entry(model)):
        return entry.clip_config
    with torch.device("meta"):
        return clip_config(create_model(model))
