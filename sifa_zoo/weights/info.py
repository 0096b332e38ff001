"""What weights say about themselves."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from sifa_zoo.config import ClipConfig, EvalConfig

METADATA_KEY = "sifa_zoo"


@dataclass(frozen=True)
class WeightsInfo:
    """What a weights file says about itself: a JSON object under the key `METADATA_KEY` of its metadata.

    `num_clips`, `num_crops` and `precision` are those of the evaluation during training, which gave `metrics`. With
    `multi_label` a video may have several classes, and each class is scored by itself.
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
    num_crops: int = 1
    multi_label: bool = False

    @property
    def protocol(self) -> str:
        """The protocol of the evaluation during training."""
        views = EvalConfig(self.num_clips, self.num_crops)
        return views.protocol(self.clip, multi_label=self.multi_label)

    def to_json(self) -> str:
        """The JSON object for the metadata."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WeightsInfo:
        """The inverse of `to_json`; keys of later versions are ignored."""
        known = {f.name for f in dataclasses.fields(cls)}
        values = {key: value for key, value in json.loads(text).items() if key in known}
        values |= {"clip": ClipConfig(**values["clip"]), "class_names": tuple(values["class_names"])}
        return cls(**values)
