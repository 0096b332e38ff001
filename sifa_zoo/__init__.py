"""SIFA video models in the style of timm: `sifa_zoo.create_model("sifa_net_r50")`.

Source: SIFA, Stand-alone Inter-Frame Attention in Video Models, CVPR 2022 (https://arxiv.org/abs/2206.06931).

Names are imported when they are first used, so that the command line answers without torch. What `import sifa_zoo` does
to other packages, models in timm's registry and the operator in torch's, follows once these are there.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sifa_zoo.after_import import after_import

if TYPE_CHECKING:
    from sifa_zoo import ops
    from sifa_zoo.inference.predict import predict
    from sifa_zoo.models import convert
    from sifa_zoo.registry.create import create_model
    from sifa_zoo.registry.names import is_model, list_models, list_pretrained
    from sifa_zoo.video.load import VideoError, load_video
    from sifa_zoo.weights.hub import WeightsError

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

_HOMES = {
    "VideoError": "video.load",
    "WeightsError": "weights.hub",
    "create_model": "registry.create",
    "is_model": "registry.names",
    "list_models": "registry.names",
    "list_pretrained": "registry.names",
    "load_video": "video.load",
    "predict": "inference.predict",
}
_FILES = {"config": "config", "convert": "models.convert", "files": "files"}
_ROOMS = {room: room for room in ("models", "ops", "registry", "weights")}
_BUILDING = ("registry.create", "models.sifa_net", "models.sifa_transformer")  # these import all files of those rooms


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    for module in _BUILDING if name in _ROOMS else ():
        importlib.import_module(f"{__name__}.{module}")
    if home := (_FILES | _ROOMS).get(name):
        return importlib.import_module(f"{__name__}.{home}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_FILES, *_ROOMS})


after_import("torch", "sifa_zoo.ops")
after_import("timm", "sifa_zoo.registry.timm_names")
after_import("torch.utils.flop_counter", "sifa_zoo.ops.flops")
