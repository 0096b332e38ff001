"""`create_model`: from a name to a model, with its weights."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from timm.models._features import FeatureGetterNet
from torch import nn

from sifa_zoo.models.clip_model import ClipModel
from sifa_zoo.models.convert import without_head
from sifa_zoo.registry.described import described, pretrained_cfg
from sifa_zoo.registry.names import ARCHITECTURES, TIMM, check_name
from sifa_zoo.registry.trunks import create_trunk, load_trunk, refuse_meta
from sifa_zoo.weights.contents import count_classes, read_weights
from sifa_zoo.weights.finding import SCHEMES, Weights, find_file, find_weights
from sifa_zoo.weights.hub import MismatchError, WeightsError
from sifa_zoo.weights.loading import SkipInit, load_planar_weights, load_weights

_logger = logging.getLogger(__name__)


def create_model(
    name: str,
    pretrained: bool = False,
    *,
    num_classes: int | None = None,
    num_frames: int | None = None,
    img_size: int | Sequence[int] | None = None,
    in_chans: int = 3,
    checkpoint_path: str | Path | None = None,
    cache_dir: str | Path | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build a model.

    Args:
        name: An architecture of `list_models()`; or weights: `architecture.tag` of `list_pretrained()`,
            `hf-hub:owner/name` or `hf-hub:owner/name@revision`, or `local-dir:PATH` (a folder as published, or a run of
            `sifa-zoo finetune`). A name of weights loads them, whatever `pretrained` says. Or `timm:` and the name of
            an image model of timm, such as `timm:convnext_tiny.in12k_ft_in1k`: SIFA in this trunk.
        pretrained: Load the architecture's default weights, its first in `list_pretrained()`; of `timm:NAME` the image
            model's, from the Hub or an installed package.
        num_classes: Classes; None means those of the weights, else 400. 0 gives pooled features. Where the weights have
            another number, the head is re-initialised and all else is loaded.
        num_frames: Frames per clip by default, a multiple of 4; None means those of the weights, else 16.
        img_size: Height and width in pixels, an int or a pair; None means those of the weights.
        in_chans: Channels of a frame; a stem for other channels is fitted as timm does.
        checkpoint_path: A safetensors file in this project's names; for `timm:NAME` also a checkpoint of the image
            model.
        cache_dir: Where downloaded weights are kept; None takes the cache of `huggingface_hub`.
        features_only: Return a list of feature maps `(B, C, T', H', W')` instead of logits.
        out_indices: Which maps, by number in `feature_info`; an int takes the last n, None all.
        **kwargs: Arguments of `SIFANet` or `SIFATransformer`; for `timm:NAME` of `SIFATrunk` and of the image model.

    Returns:
        A model in train mode that takes float clips `(B, in_chans, T, H, W)`.

    Raises:
        ValueError: If the name is unknown (the nearest ones are listed) or a value out of range.
        TypeError: If the model has no such argument.
        WeightsError: If weights cannot be obtained or do not fit; its subclasses in `sifa_zoo.weights.hub` say why.

    Example:
        >>> logits = sifa_zoo.create_model("sifa_net_nano", num_classes=8)(torch.randn(1, 3, 16, 112, 112))  # (1, 8)
    """
    if out_indices is not None and not features_only:
        raise ValueError("out_indices chooses feature maps: pass features_only=True with it")
    given = {"num_frames": num_frames, "img_size": img_size, "num_classes": num_classes, "in_chans": in_chans}
    arguments = {**{key: value for key, value in given.items() if value is not None}, **kwargs}
    model = _create(name, arguments, pretrained=pretrained, checkpoint_path=checkpoint_path, cache_dir=cache_dir)
    return _feature_maps(model, out_indices) if features_only else model


def _create(
    name: str,
    arguments: dict[str, Any],
    *,
    pretrained: bool,
    checkpoint_path: str | Path | None,
    cache_dir: str | Path | None,
) -> ClipModel:
    if pretrained and checkpoint_path is not None:
        raise ValueError(f"{name!r} with {pretrained = } and checkpoint_path are two sets of weights: leave one out")
    if name.startswith(TIMM):
        sources: Any = {"pretrained": pretrained, "checkpoint_path": checkpoint_path, "cache_dir": cache_dir}
        return create_trunk(name, arguments, **sources)
    if not name.startswith(SCHEMES):
        check_name(name.partition(".")[0])
    if pretrained or "." in name or name.startswith(SCHEMES):
        if checkpoint_path is not None:
            raise ValueError(f"{name!r} with checkpoint_path are two sets of weights: leave one out")
        return _build_loaded(name, find_weights(name, cache_dir=cache_dir), arguments)
    if checkpoint_path is not None:
        return _build_loaded(name, find_file(checkpoint_path), arguments)
    return _build(name, arguments)


def _build(architecture: str, arguments: dict[str, Any]) -> ClipModel:
    """The model with weights as they are drawn."""
    family = importlib.import_module(ARCHITECTURES[architecture])
    model: ClipModel = getattr(family, architecture)(**arguments)
    model.pretrained_cfg = pretrained_cfg(architecture, model)
    return model


def _build_loaded(name: str, weights: Weights, arguments: dict[str, Any]) -> ClipModel:
    """The model with these weights; what they hold is not initialised first."""
    info = weights.info
    named = name.partition(".")[0]
    stored = info.arch if info else named
    if stored.startswith(TIMM) and name.startswith(SCHEMES):
        return load_trunk(weights, arguments)
    architecture = stored if name.startswith(SCHEMES) else named
    if architecture not in ARCHITECTURES or stored != architecture:
        raise MismatchError(f"{weights.source} holds weights of {stored}, not of {_wanted(architecture)}")
    refuse_meta(arguments)
    device = torch.device(arguments.pop("device", None) or torch.get_default_device())
    stored_classes = count_classes(weights.path)
    num_classes = arguments.pop("num_classes", stored_classes)
    if num_classes is None:
        raise WeightsError(f"{weights.source} has no classifier: pass num_classes, 0 for features alone")
    head_is_new = num_classes != (stored_classes or 0)
    if not head_is_new and info and info.class_names and len(info.class_names) != num_classes:
        raise MismatchError(f"{weights.source} names {len(info.class_names)} classes, its head has {num_classes}")
    known = {"num_frames": info.clip.num_frames, "img_size": info.clip.img_size, **info.model_args} if info else {}
    arguments = {**known, **arguments, "num_classes": 0 if head_is_new else num_classes}
    with ThreadPoolExecutor(1) as reader:
        reading = reader.submit(read_weights, weights.path)  # while the model is being built
        with SkipInit():
            model = _build(architecture, {"device": "meta", **arguments})
        tensors = reading.result()
    if head_is_new:
        tensors = without_head(tensors)
    load = load_planar_weights if weights.format == "timm" else load_weights
    load(model, tensors, source=weights.source, device=device)
    model.pretrained_cfg |= weights.cfg
    if info:
        model.pretrained_cfg |= described(info, labels=not head_is_new)
    if head_is_new and num_classes:
        _logger.warning(
            "%s: the head is re-initialised for %d classes, all else is loaded", weights.source, num_classes
        )
        model.reset_classifier(num_classes)
    return model


def _wanted(architecture: str) -> str:
    return architecture if architecture in ARCHITECTURES else f"this project ({', '.join(sorted(ARCHITECTURES))})"


def _feature_maps(model: ClipModel, out_indices: int | Sequence[int] | None) -> nn.Module:
    indices = range(len(model.feature_info)) if out_indices is None else out_indices
    features: Any = FeatureGetterNet(model, indices if isinstance(indices, int) else tuple(indices))
    features.pretrained_cfg = features.default_cfg = model.pretrained_cfg
    return features
