"""`create_model("timm:NAME")`: any image model of timm as the trunk of a model for clips."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import Tensor

from sifa_zoo.models.convert import state_dict_faults
from sifa_zoo.models.sifa_trunk import SIFATrunk
from sifa_zoo.registry.described import described, pretrained_cfg
from sifa_zoo.registry.names import ARCHITECTURES, TIMM
from sifa_zoo.weights.contents import read_weights
from sifa_zoo.weights.finding import Weights, find_file
from sifa_zoo.weights.hub import CorruptError, MismatchError, WeightsError
from sifa_zoo.weights.manifest import Entry, read_manifest
from sifa_zoo.weights.packaged import read_packaged

_NUM_CLASSES = 400  # of a model without weights, as of the other families
_OURS = ("num_frames", "sifa_stages", "kernel_size", "dilation", "offsets")  # all else is timm's
_FAULTS = (RuntimeError, OSError, ValueError, KeyError)  # what timm and huggingface_hub let through


def create_trunk(
    name: str,
    arguments: Mapping[str, Any],
    *,
    pretrained: bool = False,
    checkpoint_path: str | Path | None = None,
    cache_dir: str | Path | None = None,
) -> SIFATrunk:
    """The model `timm:NAME`, with weights of the image model or with none.

    Args:
        name: `timm:` and a name of timm, with or without the tag of its weights.
        arguments: Of `SIFATrunk` and of `timm.create_model`.
        pretrained: Load the image model's weights, from an installed package or from the Hub.
        checkpoint_path: A file with weights of the image model in timm's names, or with weights of this model.
        cache_dir: As in `create_model`.

    Raises:
        ValueError: If timm has no such image model, or SIFA cannot be put into it.
        TypeError: If the image model has no such argument.
        WeightsError: If there are no such weights, they cannot be had, or do not fit.
    """
    image_name = _check_image_name(name)
    if pretrained or checkpoint_path is not None:
        refuse_meta(arguments)
    if checkpoint_path is None:
        source = (_packaged(name) or {"cache_dir": cache_dir}) if pretrained else None
        return _build(name, arguments, source=source)
    path = Path(checkpoint_path)
    if path.suffix == ".safetensors" and (weights := find_file(path)).info:
        return load_trunk(weights, arguments, name=name)
    return _build(name, arguments, source=_from_file(path, image_name))


def load_trunk(weights: Weights, arguments: Mapping[str, Any], *, name: str | None = None) -> SIFATrunk:
    """The model of a weights file of this package, at another size or with a new head where the arguments say so."""
    info = weights.info
    assert info is not None
    refuse_meta(arguments)
    if name is not None and info.arch.partition(".")[0] != name.partition(".")[0]:
        raise MismatchError(f"{weights.source} holds weights of {info.arch}, not of {name}")
    wanted = dict(arguments)
    num_classes, img_size = wanted.pop("num_classes", None), wanted.pop("img_size", None)
    _check_image_name(info.arch)
    stored = {"num_classes": len(info.class_names), "num_frames": info.clip.num_frames, "img_size": info.clip.img_size}
    model = _build(info.arch, {**stored, **info.model_args, **wanted})
    tensors = read_weights(weights.path)
    if faults := state_dict_faults(model.state_dict(), tensors):
        raise MismatchError(f"{weights.source} does not fit {info.arch}: {'; '.join(faults)}")
    model.load_state_dict(tensors)
    if img_size is not None:
        model.set_input_size(img_size)
    model.pretrained_cfg = pretrained_cfg(info.arch, model) | weights.cfg | described(info, labels=True)
    if num_classes is not None and num_classes != model.num_classes:
        model.reset_classifier(num_classes)
    return model


def _build(name: str, arguments: Mapping[str, Any], *, source: Mapping[str, Any] | None = None) -> SIFATrunk:
    """An image model of timm, its weights from `source` if there is one, and SIFA in it."""
    image_name = name.removeprefix(TIMM)
    ours = {key: arguments[key] for key in _OURS if key in arguments}
    theirs = {key: value for key, value in arguments.items() if key not in _OURS}
    img_size, device = theirs.pop("img_size", None), theirs.pop("device", None)
    if source is None:
        theirs.setdefault("num_classes", _NUM_CLASSES)
    if theirs.get("num_classes", 0) < 0:
        raise ValueError(f"num_classes must not be negative, got {theirs['num_classes']}")
    cfg = _image_cfg(image_name)
    if img_size is not None and cfg.fixed_input_size:
        theirs["img_size"] = img_size
    try:
        with torch.device(device or torch.get_default_device()):
            trunk: Any = timm.create_model(image_name, pretrained=source is not None, **source or {}, **theirs)
    except _FAULTS as error:
        if source is None:
            raise
        raise WeightsError(f"the weights of {name} cannot be loaded: {error}") from error
    trunk.pretrained_cfg.pop("state_dict", None)
    model = SIFATrunk(trunk, img_size=img_size, in_chans=arguments.get("in_chans", 3), **ours)
    model.pretrained_cfg = pretrained_cfg(name.partition(".")[0], model)
    if source is not None and model.num_classes == cfg.num_classes:
        model.pretrained_cfg |= {"tag": cfg.tag, "label_names": _imagenet_names(cfg.num_classes)}
    return model


def refuse_meta(arguments: Mapping[str, Any]) -> None:
    """Raise ValueError if a model that is to be loaded with weights would hold none."""
    if torch.device(arguments.get("device") or torch.get_default_device()).type == "meta":
        raise ValueError("weights cannot be loaded into a model on the meta device: build it without device='meta'")


def _check_image_name(name: str) -> str:
    """The name of timm in `timm:NAME`."""
    image_name = name.removeprefix(TIMM)
    architecture = image_name.partition(".")[0]
    if architecture in ARCHITECTURES:
        raise ValueError(f"{architecture} is a model for clips by itself: create_model({image_name!r})")
    if not timm.is_model(architecture):
        nearest = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.4)
        raise ValueError(f"timm has no model {architecture!r}; did you mean {', '.join(nearest) or 'resnet50'}?")
    tagged = timm.list_pretrained(architecture)
    if "." in image_name and image_name not in tagged:
        raise ValueError(f"timm has no weights {image_name!r}, but {', '.join(tagged) or 'none of this model'}")
    return image_name


def _image_cfg(image_name: str) -> Any:
    return timm.get_pretrained_cfg(image_name)


def packaged_entry(name: str) -> Entry | None:
    """The manifest's entry for the weights of `timm:NAME`, if an installed package holds them."""
    cfg = _image_cfg(name.removeprefix(TIMM))
    entry = read_manifest().get(f"{TIMM}{cfg.architecture}.{cfg.tag}")
    return entry if entry and entry.loads else None


def _packaged(name: str) -> dict[str, Any] | None:
    """What `timm.create_model` needs to load weights of an installed package."""
    entry = packaged_entry(name)
    if entry is None:
        return None
    clip = entry.clip_config
    return _from_tensors(read_packaged(entry), mean=clip.mean, std=clip.std, crop_pct=clip.crop_pct)


def _from_file(path: Path, image_name: str) -> dict[str, Any]:
    """What `timm.create_model` needs to load a checkpoint of the image model."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        tensors = timm.models.load_state_dict(str(path), weights_only=True)
    except (*_FAULTS, UnpicklingError, SafetensorError) as error:
        raise CorruptError(f"{path} cannot be read as weights: {error}") from error
    classifier = _image_cfg(image_name).classifier
    head = tensors.get(f"{classifier}.weight") if isinstance(classifier, str) else None
    return _from_tensors(tensors, **({} if head is None else {"num_classes": len(head)}))


def _from_tensors(tensors: Mapping[str, Tensor], **stated: Any) -> dict[str, Any]:
    return {"pretrained_cfg_overlay": {"state_dict": tensors, "custom_load": False, **stated}}


def _imagenet_names(num_classes: int) -> tuple[str, ...]:
    """What an image model calls its classes; empty where it is not known."""
    subset = infer_imagenet_subset({"num_classes": num_classes})
    if subset is None:
        return ()
    info = ImageNetInfo(subset)
    names = Counter(info.label_descriptions())
    described = zip(info.label_descriptions(), info.label_names(), strict=True)
    return tuple(name if names[name] == 1 else f"{name} ({synset})" for name, synset in described)
