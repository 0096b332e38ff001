"""`pretrained_cfg`: what a model says about its input, its head and its weights, in timm's terms."""

from __future__ import annotations

from typing import Any

from torch import nn

from sifa_zoo.config import IMAGENET_MEAN, IMAGENET_STD
from sifa_zoo.models.clip_model import ClipModel
from sifa_zoo.models.sifa_trunk import SIFATrunk
from sifa_zoo.weights.info import WeightsInfo


def pretrained_cfg(architecture: str, model: ClipModel) -> dict[str, Any]:
    """timm's description of a model's input and head, with the frames of a clip beside it."""
    common = {
        "architecture": architecture,
        "num_classes": model.num_classes,
        "input_size": (model.in_chans, *model.img_size),
        "pool_size": tuple(-(-side // model.feature_info[-1]["reduction"]) for side in model.img_size),
        "num_frames": model.num_frames,
        "frame_stride": 4,
        "interpolation": "bilinear",
        "first_conv": _first_conv(model),
        "paper_ids": "arXiv:2206.06931",
    }
    if isinstance(model, SIFATrunk):
        return common | _of_image_model(model)
    return common | {
        "crop_pct": 1.0,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "classifier": ("head.fc", "head_dual.fc") if getattr(model, "dual_head", False) else "head.fc",
        "license": "apache-2.0",
    }


def _of_image_model(model: SIFATrunk) -> dict[str, Any]:
    """What of timm's description of the image model is true of the model for clips."""
    cfg = model.image_cfg
    classifier = cfg.get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    prefixed = tuple(f"trunk.{name}" for name in names)
    return {
        "crop_pct": cfg.get("crop_pct", 1.0),
        "mean": tuple(cfg.get("mean", IMAGENET_MEAN)),
        "std": tuple(cfg.get("std", IMAGENET_STD)),
        "classifier": prefixed[0] if len(prefixed) == 1 else prefixed,
        "license": cfg.get("license") or "unknown",
    }


def _first_conv(model: ClipModel) -> str:
    return next(name for name, module in model.named_modules() if isinstance(module, nn.Conv2d))


def described(info: WeightsInfo, *, labels: bool) -> dict[str, Any]:
    """What weights say about themselves, for `pretrained_cfg`; frames and size are the model's own."""
    clip = {key: value for key, value in info.clip.to_dict().items() if key not in ("num_frames", "img_size")}
    names = {"label_names": info.class_names} if labels and info.class_names else {}
    evaluation = {name: getattr(info, name) for name in ("num_clips", "num_crops", "precision", "multi_label")}
    return {**clip, **names, **evaluation}
