"""What SIFA has to know of an image model of timm: its stem, its stages, and how frames lie in what they return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.layers import Conv2dSame
from torch import nn
from torch.func import functional_call

from sifa_zoo.models.clip_model import STEM_FRAMES, stack_kernel
from sifa_zoo.models.gated_sifa import Layout

_MIN_REDUCTION = 8  # by default there is no SIFA on finer maps, as in SIFA-Net
_LINEAR = (nn.Conv2d, Conv2dSame)  # exactly these: others standardise their weights over all channels
_ODD_TOKENS = {"Hiera": "its tokens are ordered by windows, not by rows"}


class TrunkError(ValueError):
    """An image model into which SIFA cannot be put."""


def feature_info(trunk: Any) -> list[dict[str, Any]]:
    """What timm states about the trunk's stages or blocks: `num_chs`, `reduction`, `module`.

    Raises:
        TrunkError: If it states nothing.
    """
    stated = getattr(trunk, "feature_info", None) or ()
    infos = [dict(info) for info in getattr(stated, "info", stated)]
    if not infos or not hasattr(trunk, "forward_intermediates"):
        raise TrunkError(f"{type(trunk).__name__} does not say which stages it has, or has no way to their features")
    return infos


def usual_stages(infos: Sequence[Mapping[str, Any]]) -> list[int]:
    """Behind which entries of a trunk's `feature_info` SIFA is by default."""
    last_of = {info["reduction"]: index for index, info in enumerate(infos)}
    if len(last_of) > 1:
        return [index for reduction, index in last_of.items() if reduction >= _MIN_REDUCTION]
    return sorted({max(len(infos) * quarter // 4 - 1, 0) for quarter in (1, 2, 3)})


def last_module(trunk: nn.Module, name: str) -> nn.Module:
    """The module whose result is that of the stage `name`: the last block of a sequence.

    With checkpointing timm walks round the sequence itself.

    Raises:
        TrunkError: If the trunk has no such module.
    """
    try:
        module = trunk.get_submodule(name)
    except AttributeError as error:
        raise TrunkError(f"{type(trunk).__name__} has no module {name!r}, which its feature_info names") from error
    while type(module) is nn.Sequential and len(module):
        module = module[-1]
    return module


def stack_stem(trunk: nn.Module, cfg: Mapping[str, Any], in_chans: int) -> nn.Module:
    """Let the first convolutions of a trunk see four frames, and return what is to precede the trunk.

    That is nothing, or a sum of the four frames where there is no such convolution: where something comes before it, or
    it does not use its weights as they are.
    """
    names = cfg.get("first_conv") or ()
    convolutions: list[Any] = [trunk.get_submodule(name) for name in ((names,) if isinstance(names, str) else names)]
    linear = [type(layer) in _LINEAR and (layer.in_channels, layer.groups) == (in_chans, 1) for layer in convolutions]
    if convolutions and all(linear):
        for layer in convolutions:
            layer.in_channels = in_chans * STEM_FRAMES
            layer.weight = nn.Parameter(stack_kernel(layer.weight.detach()))
        return nn.Identity()
    frame_sum = nn.Conv2d(in_chans * STEM_FRAMES, in_chans, 1, groups=in_chans, bias=False)
    frame_sum.weight = nn.Parameter(stack_kernel(frame_sum.weight.new_ones(in_chans, 1, 1, 1)))
    return frame_sum


@torch.no_grad()
def find_layouts(
    stem: nn.Module, trunk: nn.Module, infos: Sequence[Mapping[str, Any]], shape: tuple[int, ...]
) -> dict[str, Layout]:
    """How frames lie in what the trunk's modules return, by their names, seen in a pass on the meta device.

    Args:
        stem: What precedes the trunk.
        trunk: The image model.
        infos: Entries of its `feature_info`.
        shape: Of the stacked frames.

    Raises:
        TrunkError: If the trunk does not work at this size, or a module does not return one tensor of its channels.
    """
    name = type(trunk).__name__
    if name in _ODD_TOKENS:
        raise TrunkError(f"SIFA cannot be put into {name}: {_ODD_TOKENS[name]}")
    seen: dict[str, list[Any]] = {info["module"]: [] for info in infos}
    hooks = [
        last_module(trunk, place).register_forward_hook(lambda _, args, out, to=to: to.append(out), prepend=True)
        for place, to in seen.items()
    ]
    whole, training = nn.Sequential(stem, trunk), trunk.training
    state = {key: tensor.to("meta") for key, tensor in (*whole.named_parameters(), *whole.named_buffers())}
    frames = torch.empty(shape, device="meta", dtype=next(trunk.parameters()).dtype)
    try:
        functional_call(whole.eval(), state, (frames,))
    except (RuntimeError, AssertionError, NotImplementedError, ValueError, TypeError) as error:
        raise TrunkError(f"SIFA cannot be put into {name}: {shape[2:]} does not pass through it ({error})") from error
    finally:
        whole.train(training)
        for hook in hooks:
            hook.remove()
    return {info["module"]: _layout(name, info, seen[info["module"]], trunk, shape[2:]) for info in infos}


def _layout(name: str, info: Mapping[str, Any], seen: Sequence[Any], trunk: Any, size: Sequence[int]) -> Layout:
    """The layout of what a module returned in a pass."""
    place, dim = info["module"], info["num_chs"]
    if len(seen) != 1 or not isinstance(seen[0], torch.Tensor):
        what = f"is called {len(seen)} times" if len(seen) != 1 else f"returns a {type(seen[0]).__name__}"
        raise TrunkError(f"SIFA cannot be put into {name}: {place} {what}, not once with one tensor")
    for round_up in (0, info["reduction"] - 1):
        grid = tuple((side + round_up) // info["reduction"] for side in size)
        for prefix in {0, getattr(trunk, "num_prefix_tokens", 0)}:
            if layout := Layout.of(tuple(seen[0].shape), dim, grid, prefix):  # type: ignore[arg-type]
                return layout
    raise TrunkError(
        f"SIFA cannot be put into {name}: {place} returns {tuple(seen[0].shape)}, not maps of {dim} channels"
    )
