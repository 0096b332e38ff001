"""Models by name: `create_model`, the lists of names, and the same names in timm's registry."""

from __future__ import annotations

import difflib
import fnmatch
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from timm.models import generate_default_cfgs, register_model
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from sifa_zoo.config import IMAGENET_MEAN, IMAGENET_STD
from sifa_zoo.models import sifa_net, sifa_transformer
from sifa_zoo.models.clip_model import ClipModel

_logger = logging.getLogger(__name__)
_MAX_LISTED = 20

_ARCHITECTURES: dict[str, Callable[..., ClipModel]] = {
    build.__name__: build
    for build in (
        sifa_net.sifa_net_nano,
        sifa_net.sifa_net_r50,
        sifa_net.sifa_net_r101,
        sifa_transformer.sifa_transformer_nano,
        sifa_transformer.sifa_transformer_tiny,
        sifa_transformer.sifa_transformer_small,
        sifa_transformer.sifa_transformer_base,
        sifa_transformer.sifa_transformer_large,
    )
}


class WeightsError(ValueError):
    """Weights that do not exist, cannot be read, or do not fit the model."""


def create_model(
    name: str,
    pretrained: bool = False,
    *,
    num_classes: int | None = None,
    num_frames: int | None = None,
    img_size: int | Sequence[int] | None = None,
    in_chans: int = 3,
    checkpoint_path: str | Path | None = None,
    cache_dir: str | Path | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build a model.

    Args:
        name: An architecture of `list_models()`, or `architecture.tag`, where the tag names weights.
        pretrained: Load the weights of the tag, or the architecture's default ones.
        num_classes: Classes; None means those of the checkpoint, else 400. 0 gives pooled features.
        num_frames: Frames per clip by default, a multiple of 4.
        img_size: Height and width in pixels, an int or a pair.
        in_chans: Channels of a frame.
        checkpoint_path: A safetensors file in this project's names. Where it has another number of classes than
            `num_classes`, the head starts anew and all else is loaded.
        cache_dir: Where downloaded weights are kept; without effect while there are none.
        features_only: Return a list of feature maps `(B, C, T', H', W')` instead of logits.
        out_indices: Which maps, by number in `feature_info`; an int takes the last n, None all.
        **kwargs: Arguments of `SIFANet` or `SIFATransformer`.

    Returns:
        A model in train mode that takes float clips `(B, in_chans, T, H, W)`.

    Raises:
        ValueError: If the name is unknown (the nearest ones are listed) or a value out of range.
        TypeError: If the model has no such argument.
        WeightsError: If weights do not exist or do not fit.

    Example:
        >>> model = sifa_zoo.create_model("sifa_net_nano", num_classes=8)
        >>> model(torch.randn(1, 3, 16, 112, 112)).shape
        torch.Size([1, 8])
    """
    architecture, _, tag = name.partition(".")
    _check_name(architecture)
    if pretrained or tag:
        _raise_no_weights(architecture, tag)
    if out_indices is not None and not features_only:
        raise ValueError("out_indices chooses feature maps: pass features_only=True with it")
    state_dict = {} if checkpoint_path is None else read_weights(checkpoint_path)
    if checkpoint_path is not None and num_classes is None:
        if "head.fc.weight" not in state_dict:
            raise WeightsError(f"{checkpoint_path} has no classifier: pass num_classes, 0 for features alone")
        num_classes = state_dict["head.fc.weight"].shape[0]
    given = {"num_classes": num_classes, "num_frames": num_frames, "img_size": img_size}
    given = {key: value for key, value in given.items() if value is not None}
    model = _ARCHITECTURES[architecture](in_chans=in_chans, **given, **kwargs)
    model.pretrained_cfg = _pretrained_cfg(architecture, model)
    if checkpoint_path is not None:
        load_weights(model, state_dict, source=str(checkpoint_path))
    return _feature_maps(model, out_indices) if features_only else model


def list_models(filter: str = "", pretrained: bool = False) -> list[str]:
    """Names that `create_model` takes.

    Args:
        filter: A pattern with `*` and `?`, such as `"sifa_net*"`; empty for all.
        pretrained: Only names with weights that load today.
    """
    names = list_pretrained() if pretrained else sorted(_ARCHITECTURES)
    return fnmatch.filter(names, filter) if filter else names


def is_model(name: str) -> bool:
    """Whether `create_model` takes this name."""
    return name in _ARCHITECTURES


def list_pretrained() -> list[str]:
    """Names `architecture.tag` of weights that load today: none are released yet."""
    return []


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        WeightsError: If there is no such file, or it is not a safetensors file.
    """
    path = Path(path)
    if path.suffix in (".pth", ".pt", ".bin", ".ckpt", ".tar"):
        raise WeightsError(
            f"{path}: only safetensors files are loaded; torch.load(path, weights_only=True) reads this one, and "
            "sifa_zoo.convert.from_reference or .inflate fits it to a model"
        )
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    except SafetensorError as error:
        raise WeightsError(f"{path}: not a safetensors file, or damaged ({error})") from error


def load_weights(model: nn.Module, state_dict: dict[str, Tensor], *, source: str) -> bool:
    """Load tensors by name; a head for another number of classes is left as it starts, with one log line.

    Args:
        model: A model of this project.
        state_dict: Tensors in this project's names.
        source: Where they come from, for messages.

    Returns:
        Whether the head was loaded too.

    Raises:
        WeightsError: If a tensor outside the head is missing, left over or misshapen; at most 20 are listed.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError("weights cannot be loaded into a model on the meta device: build it without device='meta'")
    target = model.state_dict()
    head = {name for name in target.keys() | state_dict.keys() if name.startswith("head")}
    classes = [len(tensors["head.fc.weight"]) if "head.fc.weight" in tensors else 0 for tensors in (target, state_dict)]
    head_fits = classes[0] == classes[1]  # with as many classes a head that is damaged is an error like any other
    if not head_fits:
        _logger.warning("%s: the head starts anew for %d classes, all else is loaded", source, model.num_classes)
        state_dict = {name: tensor for name, tensor in state_dict.items() if name not in head}
        target = {name: tensor for name, tensor in target.items() if name not in head}
    faults = {
        "missing": [name for name in target if name not in state_dict],
        "unexpected": [name for name in state_dict if name not in target],
        "misshapen": [n for n in target if n in state_dict and target[n].shape != state_dict[n].shape],
    }
    if any(faults.values()):
        listed = [
            f"{len(names)} {kind}: {', '.join(names[:_MAX_LISTED])}{' ...' if len(names) > _MAX_LISTED else ''}"
            for kind, names in faults.items()
            if names
        ]
        raise WeightsError(f"{source} does not fit {type(model).__name__}: {'; '.join(listed)}")
    model.load_state_dict(state_dict, strict=head_fits)
    return head_fits


def _check_name(architecture: str) -> None:
    if architecture not in _ARCHITECTURES:
        nearest = difflib.get_close_matches(architecture, _ARCHITECTURES, n=3, cutoff=0.4) or sorted(_ARCHITECTURES)
        raise ValueError(
            f"unknown model {architecture!r}; did you mean {', '.join(nearest)}? list_models() has all names"
        )


def _raise_no_weights(architecture: str, tag: str) -> None:
    wanted = f"{architecture}.{tag}" if tag else architecture
    raise WeightsError(
        f"there are no weights {wanted!r}: the authors of SIFA released none, and this version ships none. Start from "
        "ImageNet with sifa_zoo.convert.inflate, load your own with checkpoint_path=, or pass pretrained=False"
    )


def _feature_maps(model: ClipModel, out_indices: int | Sequence[int] | None) -> nn.Module:
    indices = range(len(model.feature_info)) if out_indices is None else out_indices
    features: Any = FeatureGetterNet(model, indices if isinstance(indices, int) else tuple(indices))
    features.pretrained_cfg = features.default_cfg = model.pretrained_cfg
    return features


def _pretrained_cfg(architecture: str, model: ClipModel) -> dict[str, Any]:
    """timm's description of a model's input and head, with the frames of a clip beside it."""
    dual = getattr(model, "dual_head", False)
    return {
        "architecture": architecture,
        "num_classes": model.num_classes,
        "input_size": (model.in_chans, *model.img_size),
        "num_frames": model.num_frames,
        "frame_stride": 4,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "first_conv": _first_conv(model),
        "classifier": ("head.fc", "head_dual.fc") if dual else "head.fc",
        "license": "apache-2.0",
        "paper_ids": "arXiv:2206.06931",
    }


def _first_conv(model: ClipModel) -> str:
    return next(name for name, module in model.named_modules() if isinstance(module, nn.Conv2d))


# timm's registry: the same names, through the same door. `register_model` looks for `default_cfgs` in this module and
# puts the names into its `__all__`, so each entry point is a function of this module too.

default_cfgs = generate_default_cfgs(
    {name: {"input_size": (3, 224, 224), "num_classes": 400} for name in _ARCHITECTURES}
)


def _timm_entrypoint(name: str) -> Callable[..., nn.Module]:
    def entrypoint(
        pretrained: bool = False, pretrained_cfg: Any = None, pretrained_cfg_overlay: Any = None, **kwargs: Any
    ) -> nn.Module:
        if pretrained_cfg_overlay is not None or not (pretrained_cfg is None or isinstance(pretrained_cfg, str)):
            raise ValueError(
                "pretrained_cfg must be the tag of weights; load weights of your own with sifa_zoo.create_model"
            )
        return create_model(f"{name}.{pretrained_cfg}" if pretrained_cfg else name, pretrained, **kwargs)

    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__doc__ = _ARCHITECTURES[name].__doc__
    return entrypoint


__all__ = ["WeightsError", "create_model", "is_model", "list_models", "list_pretrained", "load_weights", "read_weights"]
globals().update({name: register_model(_timm_entrypoint(name)) for name in _ARCHITECTURES})
