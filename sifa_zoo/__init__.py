"""SIFA video models in the style of timm: `sifa_zoo.create_model("sifa_net_r50")`.

Source: SIFA, Stand-alone Inter-Frame Attention in Video Models, CVPR 2022 (https://arxiv.org/abs/2206.06931).
"""

from __future__ import annotations

from typing import Any

from sifa_zoo import ops
from sifa_zoo.models import convert
from sifa_zoo.registry import WeightsError, create_model, is_model, list_models, list_pretrained

__version__ = "0.1.0"

__all__ = [
    "VideoError",
    "WeightsError",
    "convert",
    "create_model",
    "is_model",
    "list_models",
    "list_pretrained",
    "load_video",
    "ops",
    "predict",
]


def __getattr__(name: str) -> Any:
    """Import what needs a video decoder when it is first used."""
    if name in ("load_video", "VideoError"):
        from sifa_zoo.video import load

        return getattr(load, name)
    if name == "predict":
        from sifa_zoo.inference.predict import predict

        return predict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
