"""The names of models and weights. This file imports no torch, so that names are there at once."""

from __future__ import annotations

import difflib
import fnmatch

from sifa_zoo.weights.manifest import read_manifest

_SIFA_NET = "sifa_zoo.models.sifa_net"
_SIFA_TRANSFORMER = "sifa_zoo.models.sifa_transformer"

# The module of each architecture's function, which has the architecture's name.
ARCHITECTURES = {
    "sifa_net_nano": _SIFA_NET,
    "sifa_net_r50": _SIFA_NET,
    "sifa_net_r101": _SIFA_NET,
    "sifa_transformer_nano": _SIFA_TRANSFORMER,
    "sifa_transformer_tiny": _SIFA_TRANSFORMER,
    "sifa_transformer_small": _SIFA_TRANSFORMER,
    "sifa_transformer_base": _SIFA_TRANSFORMER,
    "sifa_transformer_large": _SIFA_TRANSFORMER,
}

TIMM = "timm:"  # before the name of an image model of timm, as the trunk


def list_models(filter: str = "", pretrained: bool = False) -> list[str]:
    """Names that `create_model` takes.

    Args:
        filter: A pattern with `*` and `?`, such as `"sifa_net*"`; empty for all. `"timm:convnext*"` lists image models
            of timm, which are left out otherwise.
        pretrained: Only names with weights that load today.
    """
    if filter.startswith(TIMM):
        return _list_trunks(filter.removeprefix(TIMM), pretrained=pretrained)
    names = list_pretrained() if pretrained else sorted(ARCHITECTURES)
    return fnmatch.filter(names, filter) if filter else names


def _list_trunks(filter: str, *, pretrained: bool) -> list[str]:
    import timm

    names = timm.list_pretrained(filter) if pretrained else timm.list_models(filter)
    return [f"{TIMM}{name}" for name in names if name.partition(".")[0] not in ARCHITECTURES]


def is_model(name: str) -> bool:
    """Whether `create_model` takes this name: of a model, with or without the tag of weights that load."""
    if name.startswith(TIMM):
        return name in _list_trunks(name.removeprefix(TIMM), pretrained="." in name)
    return name in ARCHITECTURES or name in list_pretrained()


def list_pretrained() -> list[str]:
    """Names `architecture.tag` of weights that load today; an architecture's first one is its default."""
    return [name for name, entry in read_manifest().items() if entry.loads]


def check_name(architecture: str) -> None:
    """Refuses a name that is none.

    Raises:
        ValueError: With the nearest names.
    """
    if architecture not in ARCHITECTURES:
        nearest = difflib.get_close_matches(architecture, ARCHITECTURES, n=3, cutoff=0.4) or sorted(ARCHITECTURES)
        raise ValueError(
            f"unknown model {architecture!r}; did you mean {', '.join(nearest)}? list_models() lists all names"
        )
