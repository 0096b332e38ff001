"""Recipes: named sets of training settings that belong together. docs/recipes.md names the source of every value.

`k400` and `ssv1` are those of SIFA's published code (https://github.com/FuchenUSTC/SIFA). It has none for
Something-Something V2, so `ssv2` is that of V1. `small` is this project's own, for a few hundred videos.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sifa_zoo.config import TrainConfig


@dataclass(frozen=True)
class Recipe:
    """How to train, which clip settings change, and, in one line, what for."""

    train: TrainConfig = field(default_factory=TrainConfig)
    clip: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""


def recipes() -> dict[str, Recipe]:
    """All recipes by name.

    Example:
        >>> list(recipes())
        ['k400', 'ssv1', 'ssv2', 'small']
    """
    return {"k400": k400(), "ssv1": ssv1(), "ssv2": ssv2(), "small": small()}


def find_recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        ValueError: If there is none.
    """
    known = recipes()
    if name not in known:
        raise ValueError(f"recipe must be one of {', '.join(known)}, got {name!r}")
    return known[name]


def k400() -> Recipe:
    """Kinetics-400 as published: SGD on a global batch of 384, with crops and colour changes."""
    train = TrainConfig(
        epochs=64,
        batch_size=24,
        accumulation_steps=4,
        opt="sgd",
        lr=0.04,
        lr_batch=384,
        min_lr=1e-6,
        warmup_lr=4e-4,
        warmup_epochs=1,
        momentum=0.9,
        weight_decay=1e-4,
        loss_weight=4.0,
        label_smoothing=0.0,
        clip_grad=40.0,
        drop_rate=0.5,
        crop_scale=0.2,
        color_jitter=(0.4, 0.4, 0.4, 0.1),
        color_jitter_prob=0.8,
        grayscale_prob=0.2,
        blur_sigma=(0.1, 2.0),
        blur_prob=0.5,
        num_clips=1,
    )
    clip = {"num_frames": 16, "frame_stride": 1, "sampling": "dense", "img_size": 224, "crop_pct": 1.0}
    return Recipe(train, clip, "Kinetics-400 and the like: hundreds of videos in each of many classes; as published")


def ssv1() -> Recipe:
    """Something-Something V1 as published: half the rate, longer warm-up, RandAugment for colours, no mirroring."""
    train = replace(
        k400().train,
        lr=0.02,
        warmup_lr=2e-4,
        warmup_epochs=5,
        loss_weight=1.0,
        rand_augment=2,
        rand_augment_magnitude=27,
        color_jitter_prob=0.0,
        grayscale_prob=0.0,
        blur_prob=0.0,
        hflip=False,
    )
    clip = {"num_frames": 16, "sampling": "uniform", "fps": None, "img_size": 224, "crop_pct": 1.0}
    return Recipe(
        train, clip, "Something-Something V1 and other large data sets whose classes are motions; as published"
    )


def ssv2() -> Recipe:
    """Something-Something V2: the settings of V1."""
    return replace(ssv1(), text="Something-Something V2: the settings of V1, as none were published for V2")


def small() -> Recipe:
    """A few hundred videos: AdamW, a short warm-up, and more augmentation than by default."""
    train = TrainConfig(
        epochs=50,
        batch_size=8,
        opt="adamw",
        lr=5e-4,
        lr_batch=8,
        min_lr=1e-6,
        warmup_epochs=3,
        weight_decay=0.05,
        label_smoothing=0.1,
        clip_grad=5.0,
        drop_rate=0.2,
        crop_scale=0.4,
        rand_augment=1,
        rand_augment_magnitude=7,
        erase_prob=0.2,
        mixup_alpha=0.2,
        mix_prob=0.5,
        num_clips=3,
    )
    return Recipe(train, {}, "a few hundred videos of your own, starting from weights; this project's own")
