"""Settings as frozen dataclasses: one field is one command-line flag, and each class checks itself.

`ClipConfig` says how a clip is cut from a video and turned into model input; it travels with the weights.
`TrainConfig` says how a model is fine-tuned, and is saved in the run folder; `AugmentConfig` is the part of it that
changes clips. `WeightsInfo` is what weights say about themselves.
"""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass, field
from typing import Any

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SAMPLINGS = ("dense", "uniform")
NUM_CROPS = (1, 3)
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def _setting(default: Any, text: str, **metadata: Any) -> Any:
    """A dataclass field with the help text of its command-line flag; a `group` is that of the next flags too."""
    return field(default=default, metadata={"help": text, **metadata})


@dataclass(frozen=True)
class ClipConfig:
    """How a clip is cut from a video and turned into the model's input `(C, T, H, W)`.

    Raises:
        ValueError: If a value is out of range; the message says what is allowed.
    """

    num_frames: int = _setting(16, "frames per clip, a multiple of 4")
    frame_stride: int = _setting(4, "distance between neighbouring frames of a dense clip, in frames of the video")
    fps: float | None = _setting(
        None,
        "dense: take frames frame_stride / fps seconds apart, whatever the video's rate; none: count its own frames",
    )
    sampling: str = _setting(
        "dense", "dense: frames at frame_stride; uniform: one frame per equal segment of the video"
    )
    img_size: int = _setting(224, "height and width of the model's input, in pixels")
    crop_pct: float = _setting(1.0, "evaluation: img_size / short side before the centre crop")
    mean: tuple[float, float, float] = _setting(IMAGENET_MEAN, "channel means to subtract, for RGB in [0, 1]")
    std: tuple[float, float, float] = _setting(IMAGENET_STD, "channel standard deviations to divide by")

    def __post_init__(self) -> None:
        _settle_numbers(self)
        if self.num_frames < 4 or self.num_frames % 4:
            raise ValueError(f"num_frames must be a positive multiple of 4, got {self.num_frames}")
        if self.frame_stride < 1:
            raise ValueError(f"frame_stride must be at least 1, got {self.frame_stride}")
        if self.sampling not in SAMPLINGS:
            raise ValueError(f"sampling must be one of {SAMPLINGS}, got {self.sampling!r}")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ValueError(f"fps must be in (0, 1000], or None for the video's own frames, got {self.fps}")
        if self.fps is not None and self.sampling == "uniform":
            raise ValueError(
                f"fps is for dense sampling, uniform segments have no rate, got fps {self.fps:g} with uniform; leave "
                "one of them out, or give --fps none if the rate comes from weights"
            )
        if self.img_size < 32:
            raise ValueError(f"img_size must be at least 32, got {self.img_size}")
        if not 0 < self.crop_pct <= 1:
            raise ValueError(f"crop_pct must be in (0, 1], got {self.crop_pct}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")

    @property
    def span(self) -> int:
        """Frames of a video from the first to the last frame of a clip; if uniform, the fewest possible."""
        return self.num_frames if self.sampling == "uniform" else (self.num_frames - 1) * self.frame_stride + 1

    @property
    def short_side(self) -> int:
        """Short side in pixels that a video is resized to before the evaluation crop."""
        return round(self.img_size / self.crop_pct)

    @property
    def protocol(self) -> str:
        """The settings as the field writes them, such as `16x4, 224` or `16x4 @30fps, 224`."""
        rate = f" @{self.fps:g}fps" if self.fps else ""
        spread = f"x{self.frame_stride}{rate}" if self.sampling == "dense" else " uniform"
        return f"{self.num_frames}{spread}, {self.img_size}"

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that JSON can hold and that `ClipConfig(**dictionary)` accepts."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class EvalConfig:
    """How videos are scored: in `num_clips` x `num_crops` views each, whose scores are averaged.

    Raises:
        ValueError: If a value is out of range; the message says what is allowed.
    """

    num_clips: int = _setting(1, "clips per video, evenly spaced; the scores of all views are averaged")
    num_crops: int = _setting(1, "crops per clip: 1 (centre) or 3 (along the longer side)")
    precision: str = _setting(
        "fp32", "fp32, autocast to bf16 or fp16, or auto: bf16 where a GPU computes it, else fp32"
    )
    batch_size: int = _setting(8, "clips per forward pass (default: 8)")
    workers: int | None = _setting(None, "processes that decode videos, or auto (default): as suits the machine")

    def __post_init__(self) -> None:
        _refuse_below(self, 1, "num_clips", "batch_size")
        _refuse_workers_below_zero(self.workers)
        if self.num_crops not in NUM_CROPS:
            raise ValueError(f"num_crops must be one of {NUM_CROPS}, got {self.num_crops}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {PRECISIONS}, got {self.precision!r}")

    @property
    def videos_per_batch(self) -> int:
        """Videos whose views make a batch; one if it has more views than that."""
        return max(1, self.batch_size // (self.num_clips * self.num_crops))

    def protocol(self, clip: ClipConfig, *, multi_label: bool = False) -> str:
        """The settings of an evaluation as the field writes them, such as `16x4, 224, 10x3 views, softmax mean`."""
        mean = "sigmoid" if multi_label else "softmax"
        return f"{clip.protocol}, {self.num_clips}x{self.num_crops} views, {mean} mean"


@dataclass(frozen=True)
class AugmentConfig:
    """How training clips are changed at random, alike for all frames of a clip, and which clips an epoch has.

    Raises:
        ValueError: If a value is out of range; the message says what is allowed.
    """

    crop_scale: float = _setting(
        0.5, "smallest share of the frame's area that a random resized crop keeps", group="augmentation"
    )
    crop_ratio: float = _setting(4 / 3, "largest width / height of such a crop; the smallest is its inverse")
    hflip: bool = _setting(True, "mirror half of the clips; classes that differ only in left and right are exchanged")
    rand_augment: int = _setting(0, "RandAugment: operations per clip; 0 turns it off")
    rand_augment_magnitude: int = _setting(9, "RandAugment: strength of its operations, 0 to 30")
    color_jitter: tuple[float, float, float, float] = _setting(
        (0.4, 0.4, 0.4, 0.1), "largest changes in brightness, contrast, saturation (factors) and hue (turns)"
    )
    color_jitter_prob: float = _setting(0.0, "share of clips with colour jitter")
    grayscale_prob: float = _setting(0.0, "share of clips turned to grayscale")
    blur_sigma: tuple[float, float] = _setting((0.1, 2.0), "range of the Gaussian blur's standard deviation, in pixels")
    blur_prob: float = _setting(0.0, "share of blurred clips")
    erase_prob: float = _setting(0.0, "share of clips in which a random rectangle is erased")
    mixup_alpha: float = _setting(
        0.0,
        "MixUp of the clips of a batch, with shares from Beta(alpha, alpha); 0 turns it off",
        group="mixing of clips",
    )
    cutmix_alpha: float = _setting(0.0, "CutMix, likewise; with both, each batch takes one of them")
    mix_prob: float = _setting(1.0, "share of batches that are mixed")
    balance: float = _setting(
        0.0,
        "draw videos in proportion to class size ** -balance; 1 makes all classes equal",
        group="sampling of videos",
    )
    repeats: int = _setting(1, "clips of each video in an epoch, one after another")

    def __post_init__(self) -> None:
        _settle_numbers(self)
        if not 0 < self.crop_scale <= 1:
            raise ValueError(f"crop_scale must be in (0, 1], got {self.crop_scale}")
        if self.crop_ratio < 1:
            raise ValueError(f"crop_ratio must be at least 1, got {self.crop_ratio}")
        if self.rand_augment < 0 or not 0 <= self.rand_augment_magnitude <= 30:
            given = f"{self.rand_augment} and {self.rand_augment_magnitude}"
            raise ValueError(f"rand_augment must not be negative, and its magnitude must be in [0, 30], got {given}")
        if min(self.color_jitter) < 0 or self.color_jitter[3] > 0.5:
            raise ValueError(f"color_jitter must not be negative, and its hue at most 0.5, got {self.color_jitter}")
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(f"blur_sigma must be positive and in ascending order, got {self.blur_sigma}")
        for name in ("color_jitter_prob", "grayscale_prob", "blur_prob", "erase_prob", "mix_prob", "balance"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        _refuse_below(self, 0, "mixup_alpha", "cutmix_alpha")
        _refuse_below(self, 1, "repeats")


@dataclass(frozen=True)
class TrainConfig(AugmentConfig):
    """How a model is fine-tuned. Learning rates are taken as they are, or scaled to the global batch; see `lr_batch`.

    Raises:
        ValueError: If a value is out of range; the message says what is allowed.
    """

    epochs: int = _setting(20, "passes over the training videos", group="training")
    batch_size: int = _setting(8, "clips per step, in each process")
    accumulation_steps: int = _setting(1, "steps whose gradients are added up for an update")
    opt: str = _setting("adamw", "optimiser, by its timm name (sgd: with Nesterov momentum; momentum: without)")
    lr: float = _setting(5e-4, "peak learning rate")
    lr_batch: int = _setting(
        0,
        "global batch that the learning rates are meant for; they are scaled by the actual one / this; 0: not scaled",
        group="schedule of the learning rate",
    )
    min_lr: float = _setting(0.0, "learning rate at the end of the cosine")
    warmup_lr: float = _setting(0.0, "learning rate at which warm-up begins; 0: the first of equal increments up to lr")
    warmup_epochs: float = _setting(1.0, "epochs of linear warm-up before the cosine")
    layer_decay: float = _setting(
        1.0, "factor of the learning rate from each layer to the one before; 1: the same for all"
    )
    momentum: float = _setting(0.9, "momentum, for optimisers that have it", group="optimisation and regularisation")
    weight_decay: float = _setting(0.05, "weight decay")
    loss_weight: float = _setting(1.0, "factor on the loss, before gradients are computed and clipped")
    label_smoothing: float = _setting(0.1, "label smoothing in the loss")
    clip_grad: float = _setting(5.0, "largest gradient norm; 0 turns clipping off")
    drop_rate: float = _setting(0.0, "dropout before the classifier")
    ema_decay: float = _setting(
        0.0, "decay of a moving average of the weights, which is what is validated and kept; 0: none"
    )
    freeze: str = _setting(
        "",
        "do not train the stem and the first N stages, or the parameters that match a pattern",
        group="what is trained",
    )
    linear_probe: bool = _setting(False, "train only the classifier")
    patience: int = _setting(0, "stop after this many epochs without a better one; 0: never", group="validation")
    num_clips: int = _setting(1, "clips per video when evaluating; the scores of all views are averaged")
    num_crops: int = _setting(1, "crops per clip when evaluating: 1 (centre) or 3 (along the longer side)")
    precision: str = _setting(
        "auto",
        "fp32, autocast to bf16 or fp16, or auto: bf16 where a GPU computes it, else fp32",
        group="speed and memory",
    )
    tf32: bool = _setting(True, "while training in fp32 on a GPU, round products to TF32, for speed")
    grad_checkpointing: bool = _setting(False, "recompute activations in the backward pass: less memory, more time")
    compile: bool = _setting(False, "torch.compile the model")
    sync_bn: bool = _setting(False, "batch norm over the batches of all processes")
    fsdp: bool = _setting(False, "divide weights, gradients and optimiser state among the processes")
    skip_bad: bool = _setting(
        False, "leave out videos that cannot be decoded or, in shards, have no label, and count them", group="run"
    )
    save_every: int = _setting(0, "updates between saves, besides the one after each epoch; 0: none")
    save_minutes: float = _setting(0.0, "minutes between such saves; 0: none")
    workers: int | None = _setting(
        None, "processes that decode videos, per process that trains, or auto: as suits the machine"
    )
    seed: int = _setting(0, "seed of weights, sampling and augmentation")

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_below(self, 1, "epochs", "batch_size", "accumulation_steps")
        _refuse_below(self, 0, "lr", "lr_batch", "min_lr", "warmup_lr", "warmup_epochs")
        _refuse_below(self, 0, "weight_decay", "clip_grad", "seed", "patience", "save_every", "save_minutes")
        for name in ("label_smoothing", "drop_rate", "momentum", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.seed >= 2**63:
            raise ValueError(f"seed must be less than 2**63, got {self.seed}")
        if max(self.min_lr, self.warmup_lr) > self.lr > 0:
            raise ValueError(f"min_lr and warmup_lr must be at most lr, got {self.min_lr}, {self.warmup_lr}, {self.lr}")
        if self.loss_weight <= 0:
            raise ValueError(f"loss_weight must be positive, got {self.loss_weight}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must be in (0, 1], got {self.layer_decay}")
        _ = self.evaluation  # checks itself, and the workers
        if self.linear_probe and self.freeze:
            raise ValueError("freeze and linear_probe exclude each other: a linear probe trains only the classifier")
        if self.fsdp and (self.precision == "fp16" or self.ema_decay or self.sync_bn or self.compile):
            raise ValueError("fsdp works with fp32 or bf16, and without ema_decay, sync_bn and compile")

    @property
    def evaluation(self) -> EvalConfig:
        """How the model is validated."""
        return EvalConfig(**{f.name: getattr(self, f.name) for f in dataclasses.fields(EvalConfig)})


@dataclass(frozen=True)
class ReadConfig:
    """How a data set is read.

    Raises:
        ValueError: If a value is out of range; the message says what is allowed.
    """

    format: str | None = _setting(None, "format of DATA (default: recognised from its files)", metavar="NAME")
    remap: str | None = _setting(
        None,
        "where labels and classes disagree: `index`, or a file of lines `label of the data,class of the weights`",
        metavar="FILE",
    )
    allow_missing: bool = _setting(False, "leave out videos that do not exist, with a warning")
    fold: int = _setting(1, "fold of UCF101 or HMDB51: 1, 2 or 3 (default: 1)")

    def __post_init__(self) -> None:
        if self.fold not in (1, 2, 3):
            raise ValueError(f"fold must be 1, 2 or 3, got {self.fold}")


@dataclass(frozen=True)
class ResizeConfig:
    """How videos are copied so that they decode faster.

    Raises:
        ValueError: If a value is out of range; the message says what is allowed.
    """

    short_side: int = _setting(256, "short side of the copies, in pixels; smaller videos keep their size")
    crf: int = _setting(18, "x264's quality, 0 (lossless) to 51; 18 is hard to tell from the original")
    gop_size: int = _setting(
        24, "frames from one keyframe to the next: few make random access fast, many make files small"
    )

    def __post_init__(self) -> None:
        _refuse_below(self, 32, "short_side")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf must be in [0, 51], got {self.crf}")
        _refuse_below(self, 1, "gop_size")


def usable_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _refuse_workers_below_zero(workers: int | None) -> None:
    if workers is not None and workers < 0:
        raise ValueError(f"workers must not be negative, got {workers}")


def _settle_numbers(config: Any) -> None:
    """Makes tuples of the lists that JSON brings, and refuses numbers that are not finite and tuples too short."""
    for setting in dataclasses.fields(config):
        name, value = setting.name, getattr(config, setting.name)
        if isinstance(setting.default, tuple):
            object.__setattr__(config, name, value := tuple(value))
            if len(value) != len(setting.default):
                raise ValueError(f"{name} must be {len(setting.default)} numbers, got {value}")
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise ValueError(f"{name} must be finite, got {value}")


def _refuse_below(config: Any, least: int, *names: str) -> None:
    for name in names:
        if getattr(config, name) < least:
            limit = "must not be negative" if least == 0 else f"must be at least {least}"
            raise ValueError(f"{name} {limit}, got {getattr(config, name)}")
