"""Settings as frozen dataclasses: one field is one command-line flag, and each class checks itself.

`ClipConfig` says how a clip is cut from a video and turned into model input; it travels with the weights.
`TrainConfig` says how a model is fine-tuned; it is saved in the run folder. `WeightsInfo` is what weights say of
themselves.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SAMPLINGS = ("dense", "uniform")
METADATA_KEY = "sifa_zoo"


def _setting(default: Any, text: str, **metadata: Any) -> Any:
    """A dataclass field with the help text of its command-line flag."""
    return field(default=default, metadata={"help": text, **metadata})


@dataclass(frozen=True)
class ClipConfig:
    """How a clip is cut from a video and turned into the model's input `(C, T, H, W)`.

    Raises:
        ValueError: If a value is out of range; the message says what is allowed.
    """

    num_frames: int = _setting(16, "frames per clip, a multiple of 4")
    frame_stride: int = _setting(4, "distance between neighbouring frames of a dense clip, in frames of the video")
    sampling: str = _setting("dense", "dense: frames at frame_stride; uniform: a frame per equal segment of the video")
    img_size: int = _setting(224, "height and width of the model's input, in pixels")
    crop_pct: float = _setting(1.0, "evaluation: img_size / short side before the centre crop")
    mean: tuple[float, float, float] = _setting(IMAGENET_MEAN, "channel means that are subtracted, for RGB in [0, 1]")
    std: tuple[float, float, float] = _setting(IMAGENET_STD, "channel deviations that are divided by")

    def __post_init__(self) -> None:
        if self.num_frames < 4 or self.num_frames % 4:
            raise ValueError(f"num_frames must be a positive multiple of 4, got {self.num_frames}")
        if self.frame_stride < 1:
            raise ValueError(f"frame_stride must be at least 1, got {self.frame_stride}")
        if self.sampling not in SAMPLINGS:
            raise ValueError(f"sampling must be one of {SAMPLINGS}, got {self.sampling!r}")
        if self.img_size < 32:
            raise ValueError(f"img_size must be at least 32, got {self.img_size}")
        if not 0 < self.crop_pct <= 1:
            raise ValueError(f"crop_pct must be in (0, 1], got {self.crop_pct}")
        object.__setattr__(self, "mean", tuple(self.mean))  # JSON brings lists
        object.__setattr__(self, "std", tuple(self.std))

    @property
    def short_side(self) -> int:
        """Short side in pixels to which a video is resized before the evaluation crop."""
        return round(self.img_size / self.crop_pct)

    @property
    def protocol(self) -> str:
        """The settings as the field writes them, such as `16x4, 224`."""
        spread = f"x{self.frame_stride}" if self.sampling == "dense" else " uniform"
        return f"{self.num_frames}{spread}, {self.img_size}"

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that JSON can hold and `ClipConfig(**dictionary)` takes back."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class TrainConfig:
    """How a model is fine-tuned. Rates are per optimiser step at this batch size; nothing is scaled behind the back.

    Raises:
        ValueError: If a value is out of range; the message says what is allowed.
    """

    epochs: int = _setting(20, "passes over the training videos")
    batch_size: int = _setting(8, "clips per step")
    accumulation_steps: int = _setting(1, "batches whose gradients are added up before a step")
    opt: str = _setting("adamw", "optimiser, by its timm name")
    lr: float = _setting(5e-4, "peak learning rate")
    weight_decay: float = _setting(0.05, "weight decay")
    warmup_epochs: float = _setting(1.0, "epochs of linear warm-up before the cosine")
    label_smoothing: float = _setting(0.1, "label smoothing of the cross-entropy")
    clip_grad: float = _setting(5.0, "largest gradient norm; 0 turns clipping off")
    drop_rate: float = _setting(0.0, "dropout before the classifier")
    crop_scale: float = _setting(0.5, "smallest share of the frame that a random resized crop keeps")
    hflip: bool = _setting(True, "mirror half of the clips; turn off when classes differ in left and right")
    num_clips: int = _setting(1, "clips per video when evaluating; their softmax scores are averaged")
    precision: str = _setting("fp32", "fp32, or bf16 autocast")
    workers: int = _setting(2, "processes that decode videos")
    seed: int = _setting(0, "seed of weights, sampling and augmentation")

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulation_steps", "num_clips"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("lr", "weight_decay", "warmup_epochs", "clip_grad", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("label_smoothing", "drop_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if not 0 < self.crop_scale <= 1:
            raise ValueError(f"crop_scale must be in (0, 1], got {self.crop_scale}")
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision must be fp32 or bf16, got {self.precision!r}")


@dataclass(frozen=True)
class RunConfig:
    """All that makes a fine-tuning run what it is: `config.json` of the run folder holds it, `--resume` compares it."""

    data: str
    model: str
    clip: ClipConfig
    train: TrainConfig
    val: str | None = None
    model_args: dict[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    pretrained: bool = False
    format: str | None = None
    remap: str | None = None
    allow_missing: bool = False
    fold: int = 1

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunConfig:
        """The inverse of `dataclasses.asdict`; other keys are left out."""
        known = {f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values}
        return cls(**{**known, "clip": ClipConfig(**known["clip"]), "train": TrainConfig(**known["train"])})

    @property
    def architecture(self) -> str:
        """The model's name without the tag of the weights that training starts from."""
        return self.model.partition(".")[0]

    def flat(self) -> dict[str, Any]:
        """One entry per setting, those of `clip` and `train` among them under their own names."""
        values = dataclasses.asdict(self)
        clip, train = values.pop("clip"), values.pop("train")
        return {**values, **clip, **train}


@dataclass(frozen=True)
class WeightsInfo:
    """What a weights file says about itself: a JSON object under the key `METADATA_KEY` of its metadata.

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
