"""The settings of a run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from sifa_zoo.config import ClipConfig, ReadConfig, TrainConfig


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a run: `config.json` in the run folder holds it, and `--resume` compares it."""

    data: str
    model: str
    clip: ClipConfig
    train: TrainConfig
    reading: ReadConfig = ReadConfig()
    val: str | None = None
    model_args: dict[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    pretrained: bool = False
    recipe: str | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunConfig:
        """The inverse of `dataclasses.asdict`; other keys are ignored."""
        known = {f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values}
        parts = {"clip": ClipConfig, "train": TrainConfig, "reading": ReadConfig}
        return cls(**{**known, **{name: config(**known[name]) for name, config in parts.items()}})

    @property
    def architecture(self) -> str:
        """The name of the model, without the tag of weights that training starts from."""
        return self.model.partition(".")[0]

    def flat(self) -> dict[str, Any]:
        """One entry per setting, including those of `clip`, `train` and `reading` under their own names."""
        values = dataclasses.asdict(self)
        reading, clip, train = (values.pop(name) for name in ("reading", "clip", "train"))
        return {**values, **reading, **clip, **train}
