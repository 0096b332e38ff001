"""The same names in timm's registry: `timm.create_model("sifa_net_r50")`. Importing this module registers them.

`sifa_zoo` imports it as soon as timm is there, which may be in the middle of `sifa_zoo.registry.create`: so models are
imported only when one is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from timm.models import generate_default_cfgs, register_model

from sifa_zoo.registry.names import ARCHITECTURES, TIMM
from sifa_zoo.weights.manifest import Entry, read_manifest

if TYPE_CHECKING:
    from torch import nn


_STRIDE = 32  # of the last feature map, in every architecture
_KEPT = ("tag", "license", "frame_stride", "fps", "sampling", "crop_pct", "mean", "std")  # where nothing is loaded
_UNSUPPORTED = ("feature_cls", "feature_cfg", "output_stride", "output_dict", "output_fmt", "pruned")


def _timm_cfg(name: str, entry: Entry) -> dict[str, Any]:
    """What timm's registry says of weights; of an architecture it says what it says of its default weights."""
    source = {"file": entry.file} if entry.status == "embedded" else {"hf_hub_id": entry.repo}
    clip = entry.clip_config
    return {
        **source,
        "input_size": (3, clip.img_size, clip.img_size),
        "pool_size": (-(-clip.img_size // _STRIDE),) * 2,
        "interpolation": "bilinear",
        "crop_pct": clip.crop_pct,
        "mean": clip.mean,
        "std": clip.std,
        "num_classes": entry.num_classes,
        "license": entry.licence,
        "description": f"{name}, clips {clip.protocol}; without weights and tag the architecture has its own size",
    }


def _entry_point(name: str) -> Callable[..., nn.Module]:
    def entry_point(
        pretrained: bool = False, pretrained_cfg: Any = None, pretrained_cfg_overlay: Any = None, **kwargs: Any
    ) -> nn.Module:
        from sifa_zoo.registry.create import create_model

        if pretrained_cfg_overlay is not None:
            raise ValueError("pretrained_cfg_overlay is not supported; pass num_classes, img_size or num_frames")
        _refuse_unsupported(name, kwargs)
        kwargs.pop("pretrained_model_args", None)  # of timm's config.json; the weights bring their own
        weights = _weights_name(name, pretrained_cfg)
        if pretrained:
            return create_model(weights, pretrained, **kwargs)
        stated = _stated_cfg(weights, pretrained_cfg) if pretrained_cfg else {}
        model: Any = create_model(name, **(_arguments(stated) | kwargs))
        model.pretrained_cfg |= {key: stated[key] for key in _KEPT if stated.get(key) is not None}
        if "num_classes" not in kwargs and not kwargs.get("features_only"):
            model._unchosen_classes = model.num_classes
            model.register_load_state_dict_pre_hook(_take_classes)
        return model

    entry_point.__name__ = entry_point.__qualname__ = name
    entry_point.__doc__ = f"`sifa_zoo.create_model({name!r})`."
    return entry_point


def _refuse_unsupported(name: str, kwargs: dict[str, Any]) -> None:
    if getattr(kwargs.get("feature_cls"), "__name__", kwargs.get("feature_cls")) in ("getter", "FeatureGetterNet"):
        del kwargs["feature_cls"]  # what features_only=True gives here
    if unsupported := [argument for argument in _UNSUPPORTED if argument in kwargs]:
        raise TypeError(
            f"{name} does not support timm's {'=, '.join(unsupported)}=; feature maps come from features_only=True "
            "with out_indices= (which maps, or how many of the last), by feature_cls='getter', at the model's strides"
        )


def _stated_cfg(weights: str, pretrained_cfg: Any) -> dict[str, Any]:
    """What the manifest or a `config.json` states about weights that are not to be loaded."""
    if not isinstance(pretrained_cfg, str):
        return dict(pretrained_cfg if isinstance(pretrained_cfg, dict) else vars(pretrained_cfg))
    from sifa_zoo.weights.finding import find_entry

    entry = find_entry(weights)[1]
    size = entry.clip_config.img_size
    return {
        **entry.clip_config.to_dict(),
        "input_size": (3, size, size),
        "num_classes": entry.num_classes,
        "model_args": entry.model_args,
        "tag": pretrained_cfg,
        "license": entry.licence,
    }


def _arguments(stated: dict[str, Any]) -> dict[str, Any]:
    """Arguments for a model of the same shape as weights, as timm builds it without them."""
    in_chans, *size = stated.get("input_size") or (None,)
    shape = {"num_classes": stated.get("num_classes"), "num_frames": stated.get("num_frames"), "in_chans": in_chans}
    known = {**shape, "img_size": tuple(size) or None, **stated.get("model_args", {})}
    return {key: value for key, value in known.items() if value is not None}


def _take_classes(model: Any, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Give the head the classes of the first state_dict that is loaded, if nobody has chosen a number.

    timm loads `checkpoint_path` into the finished model. Parameters stay the same objects, for whoever holds them.
    """
    weight = state_dict.get(f"{prefix}head.fc.weight")
    unchosen, model._unchosen_classes = model._unchosen_classes, None
    if weight is None or weight.ndim != 2 or unchosen != model.num_classes or weight.shape[0] == unchosen:
        return
    classifier = model.get_classifier()
    for linear in classifier if isinstance(classifier, tuple) else (classifier,):
        linear.out_features = weight.shape[0]
        for parameter in (linear.weight, linear.bias):
            parameter.data = parameter.new_empty(weight.shape[0], *parameter.shape[1:])
    model.num_classes = weight.shape[0]
    model.pretrained_cfg = {**model.pretrained_cfg, "num_classes": model.num_classes}


def _weights_name(architecture: str, pretrained_cfg: Any) -> str:
    """What `create_model` calls the weights that timm hands over as a tag or as a parsed `config.json`."""
    if not pretrained_cfg:
        return architecture
    if isinstance(pretrained_cfg, str):
        return f"{architecture}.{pretrained_cfg}"
    cfg = pretrained_cfg if isinstance(pretrained_cfg, dict) else vars(pretrained_cfg)
    if cfg.get("source") == "hf-hub":
        return f"hf-hub:{cfg['hf_hub_id']}"
    if cfg.get("source") == "local-dir":
        return f"local-dir:{cfg['file']}"
    raise ValueError("pretrained_cfg must be the tag of weights; load weights of your own with sifa_zoo.create_model")


# `register_model` looks for `default_cfgs` in this module and adds the names to its `__all__`, so each entry point must
# be a function of this module too.
__all__: list[str] = []
_ours = {name: entry for name, entry in read_manifest().items() if entry.loads and not name.startswith(TIMM)}
default_cfgs = generate_default_cfgs({name: _timm_cfg(name, entry) for name, entry in _ours.items()})
globals().update({name: register_model(_entry_point(name)) for name in ARCHITECTURES})
