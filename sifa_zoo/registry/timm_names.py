"""The same names in timm's registry: `timm.create_model("sifa_net_r50")`. Importing this module registers them.

`sifa_zoo` imports it as soon as timm is there, which may be in the middle of `sifa_zoo.registry.create`: so models are
imported only when one is built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from timm.models import generate_default_cfgs, register_model

from sifa_zoo.registry.names import ARCHITECTURES, TIMM
from sifa_zoo.weights.manifest import Entry, read_manifest

if TYPE_CHECKING:
    from torch import nn


def _timm_cfg(entry: Entry) -> dict[str, Any]:
    source = {"file": entry.file} if entry.status == "embedded" else {"hf_hub_id": entry.repo}
    size = entry.clip_config.img_size
    return {**source, "input_size": (3, size, size), "num_classes": entry.num_classes, "license": entry.licence}


def _entry_point(name: str) -> Callable[..., nn.Module]:
    def entry_point(
        pretrained: bool = False, pretrained_cfg: Any = None, pretrained_cfg_overlay: Any = None, **kwargs: Any
    ) -> nn.Module:
        from sifa_zoo.registry.create import create_model

        if pretrained_cfg_overlay is not None:
            raise ValueError("pretrained_cfg_overlay is not supported; pass num_classes, img_size or num_frames")
        kwargs.pop("pretrained_model_args", None)  # of timm's config.json; the weights bring their own
        return create_model(_weights_name(name, pretrained_cfg), pretrained, **kwargs)

    entry_point.__name__ = entry_point.__qualname__ = name
    entry_point.__doc__ = f"`sifa_zoo.create_model({name!r})`."
    return entry_point


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
default_cfgs = generate_default_cfgs({name: _timm_cfg(entry) for name, entry in _ours.items()})
globals().update({name: register_model(_entry_point(name)) for name in ARCHITECTURES})
