from __future__ import annotations

import json
import math
from dataclasses import asdict

import pytest

from sifa_zoo.config import AugmentConfig, ClipConfig, EvalConfig, ReadConfig, TrainConfig
from sifa_zoo.training.run_config import RunConfig
from sifa_zoo.weights.info import WeightsInfo


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        (ClipConfig(), "16x4, 224"),
        (ClipConfig(fps=30), "16x4 @30fps, 224"),
        (ClipConfig(fps=29.97, num_frames=8), "8x4 @29.97fps, 224"),
        (ClipConfig(sampling="uniform"), "16 uniform, 224"),
    ],
)
def test_protocol(clip, expected):
    assert clip.protocol == expected


def test_protocol_of_an_evaluation():
    ten_by_three = EvalConfig(num_clips=10, num_crops=3)
    assert ten_by_three.protocol(ClipConfig()) == "16x4, 224, 10x3 views, softmax mean"
    uniform = ClipConfig(sampling="uniform")
    assert EvalConfig().protocol(uniform, multi_label=True) == "16 uniform, 224, 1x1 views, sigmoid mean"


@pytest.mark.parametrize(
    ("settings", "videos"), [({}, 8), ({"num_clips": 3}, 2), ({"num_clips": 3, "num_crops": 3}, 1)]
)
def test_videos_whose_views_make_a_batch(settings, videos):
    assert EvalConfig(batch_size=8, **settings).videos_per_batch == videos


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_clips": 0}, "num_clips must be at least 1, got 0"),
        ({"num_crops": 2}, r"num_crops must be one of \(1, 3\), got 2"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"workers": -1}, "workers must not be negative, got -1"),
        ({"precision": "fp64"}, "precision must be one of .*, got 'fp64'"),
    ],
)
def test_evaluation_out_of_range_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EvalConfig(**settings)


@pytest.mark.parametrize("fold", [0, 4])
def test_fold_out_of_range_is_refused(fold):
    with pytest.raises(ValueError, match=f"fold must be 1, 2 or 3, got {fold}"):
        ReadConfig(fold=fold)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"std": (0.2, 0.0, 0.2)}, "std must be positive"),
        ({"mean": (0.5,)}, r"mean must be 3 numbers, got \(0.5,\)"),
        ({"crop_pct": math.nan}, "crop_pct must be finite"),
    ],
)
def test_clips_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ClipConfig(**settings)


@pytest.mark.parametrize("fps", [0, -1, 2000])
def test_fps_out_of_range_is_refused(fps):
    with pytest.raises(ValueError, match=r"fps must be in \(0, 1000\], or None"):
        ClipConfig(fps=fps)


def test_uniform_sampling_has_no_rate():
    with pytest.raises(ValueError, match="fps is for dense sampling, .* got fps 30 with uniform; .* --fps none"):
        ClipConfig(sampling="uniform", fps=30)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_scale": 0}, r"crop_scale must be in \(0, 1\]"),
        ({"crop_scale": 1.5}, r"crop_scale must be in \(0, 1\]"),
        ({"crop_ratio": 0.5}, "crop_ratio must be at least 1"),
        ({"rand_augment": -1}, "rand_augment must not be negative"),
        ({"rand_augment_magnitude": 31}, r"its magnitude must be in \[0, 30\], got 0 and 31"),
        ({"color_jitter": (0.4, -0.1, 0.4, 0.1)}, "color_jitter must not be negative"),
        ({"color_jitter": (0.4, 0.4, 0.4, 0.6)}, "and its hue at most 0.5"),
        ({"blur_sigma": (2.0, 1.0)}, "blur_sigma must be positive and in ascending order"),
        ({"blur_prob": 1.1}, r"blur_prob must be in \[0, 1\]"),
        ({"balance": -0.1}, r"balance must be in \[0, 1\]"),
        ({"mixup_alpha": -1}, "mixup_alpha must not be negative"),
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"crop_ratio": math.nan}, "crop_ratio must be finite, got nan"),
        ({"blur_sigma": (0.1, math.inf)}, "blur_sigma must be finite"),
        ({"color_jitter": (0.4,)}, r"color_jitter must be 4 numbers, got \(0.4,\)"),
    ],
    ids=str,
)
def test_augmentation_out_of_range_is_refused(settings, message):
    for config in (AugmentConfig, TrainConfig):
        with pytest.raises(ValueError, match=message):
            config(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"warmup_epochs": math.inf}, "warmup_epochs must be finite"),
        ({"loss_weight": math.nan}, "loss_weight must be finite"),
        ({"seed": 2**63}, r"seed must be less than 2\*\*63"),
        ({"lr_batch": -1}, "lr_batch must not be negative"),
        ({"seed": -1}, "seed must not be negative"),
        ({"momentum": 1}, r"momentum must be in \[0, 1\)"),
        ({"min_lr": 1.0}, "min_lr and warmup_lr must be at most lr"),
        ({"loss_weight": 0}, "loss_weight must be positive"),
        ({"num_crops": 2}, r"num_crops must be one of \(1, 3\), got 2"),
        ({"precision": "fp8"}, "precision must be one of"),
        ({"layer_decay": 0.0}, r"layer_decay must be in \(0, 1\], got 0.0"),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\)"),
        ({"patience": -1}, "patience must not be negative"),
        ({"save_every": -1}, "save_every must not be negative"),
        ({"save_minutes": -0.5}, "save_minutes must not be negative"),
        ({"freeze": "2", "linear_probe": True}, "freeze and linear_probe exclude each other"),
        ({"fsdp": True, "ema_decay": 0.9}, "fsdp works with fp32 or bf16, and without ema_decay"),
        ({"fsdp": True, "precision": "fp16"}, "fsdp works with fp32 or bf16"),
    ],
    ids=str,
)
def test_training_out_of_range_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)


def test_settings_survive_json():
    config = RunConfig(data="d", model="m", clip=ClipConfig(fps=25), train=TrainConfig(repeats=2), recipe="small")
    assert RunConfig.from_dict(json.loads(json.dumps(asdict(config)))) == config


def test_weights_that_say_less_still_load():
    info = WeightsInfo(arch="a", class_names=("x",), clip=ClipConfig(), version="1")
    stated = json.loads(info.to_json())
    del stated["num_crops"], stated["clip"]["fps"]
    assert WeightsInfo.from_json(json.dumps(stated)) == info
