"""Checkpoints of others, renamed and reshaped to this project's models; every tensor is accounted for.

`from_reference` takes checkpoints of the published SIFA code (github.com/FuchenUSTC/SIFA), `inflate` those of 2D
ImageNet models in timm's names. Both return a complete state_dict for `model.load_state_dict(..., strict=True)`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Mapping, Sequence
from typing import Any

import torch
from timm.layers import resize_rel_pos_bias_table
from timm.models._manipulate import adapt_input_conv
from torch import Tensor

from sifa_zoo.models.clip_model import STEM_FRAMES, ClipModel, stack_kernel

_MAX_LISTED = 20
_CLASSIFIERS = ("head.fc.weight", "fc.weight", "head.weight")  # here and in 2D and published checkpoints
_WRAPPERS = ("module.", "_orig_mod.")
_HEADS = ("head.", "head_dual.", "fc.")
_ADDED = (".temporal.", ".aa.", ".se.")  # to a 2D model
_STEMS = ("conv1.weight", "conv1.0.weight", "patch_embed.proj.weight")
_BUFFERS = ("attn_mask", "relative_position_index")  # of Swin, which older checkpoints hold for their own size
_UNUSED = re.compile(r"layers\.\d+\.blocks\.\d+\.(conv|tda_norm)\.")  # of two temporal paths a block has only one
_PUBLISHED = {  # part of a name here, and in the published code
    "head_dual.fc.": "fc_dual.",
    "head.fc.": "fc.",
    ".aa.": ".",
    ".se.": ".",
    ".temporal.norm.": ".tda_norm.",
    ".temporal.conv.": ".conv.",
}

_HINTS = (  # part of a name, how to build a model that fits, and the kind of fault
    ("dual", "the checkpoint has a second branch: build the model with dual_head=True", "unexpected"),
    ("dual", "the checkpoint has one head: build the model with dual_head=False", "missing"),
    (".fc1.", "the checkpoint has global context: build the model with global_context=True", "unexpected"),
    (".se.", "the checkpoint has no global context: build the model with global_context=False", "missing"),
    ("patch_embed.norm", "the checkpoint has a patch norm: build the model with patch_norm=True", "unexpected"),
    ("patch_embed.norm", "the checkpoint has no patch norm: build the model with patch_norm=False", "missing"),
    ("conv_offset", "build the model with the checkpoint's kernel_size", "misshapen"),
    ("head", "build the model with the checkpoint's num_classes, then model.reset_classifier(...)", "misshapen"),
)


class ConversionError(ValueError):
    """A checkpoint that does not fit the model, with the tensors that do not fit."""


def from_reference(state_dict: Mapping[str, Tensor], model: ClipModel) -> dict[str, Tensor]:
    """A checkpoint of the published SIFA code as a state_dict of this model.

    The published SIFA-Net has `dual_head=True`, the published SIFA-Transformer `patch_norm=False`; the model must be
    built so, with the checkpoint's classes, kernel sizes and, for SIFA-Transformer, `img_size=224`.

    Args:
        state_dict: In the published names; `module.` and `_orig_mod.` in front of all of them are removed.
        model: Of the same architecture.

    Returns:
        A complete state_dict. The offset convolutions of SIFA-Transformer, which the published code leaves out, are
        zero.

    Raises:
        ConversionError: If a tensor is missing, left over, misshapen, or not what the architecture makes it; at most 20
            are listed.

    Example:
        >>> model = create_model("sifa_net_r50", dual_head=True)
        >>> model.load_state_dict(from_reference(torch.load("sifa_r50.pth", weights_only=True), model))
    """
    source = without_prefix(state_dict)
    converted = {}
    for name, target in model.state_dict().items():
        reference = reference_name(name)
        if reference in source:
            converted[name] = _reshape(source.pop(reference), target, name)
        elif name.endswith(".temporal.sifa.conv_offset.weight"):
            converted[name] = torch.zeros_like(target)  # the published offsets are all zero
        elif name.endswith("num_batches_tracked"):
            converted[name] = torch.tensor(0)
    _raise_unless_complete(model, converted, leftover=_check_derived(source, model))
    return converted


def inflate(state_dict: Mapping[str, Tensor], model: ClipModel) -> dict[str, Tensor]:
    """A 2D ImageNet checkpoint in timm's names (a ResNet or Swin) as a state_dict of this model.

    The stem's 2D kernel goes to the third of the four frames that the stem sees, the other three are zero; `layer4`
    also starts the second branch of a dual-head model. What a 2D model lacks keeps the model's own start: zero for
    offset and temporal convolutions, and a fresh head where the number of classes differs.

    Args:
        state_dict: In timm's names, such as of `resnet50` or `swin_base_patch4_window7_224`.
        model: Of the same depths and widths; its channels and frame size may differ.

    Returns:
        A complete state_dict. With `patch_norm=False` Swin's patch norm is dropped, as in the published code.

    Raises:
        ConversionError: If a tensor is missing, left over or misshapen; at most 20 are listed.

    Example:
        >>> model = create_model("sifa_transformer_base", num_classes=10)
        >>> backbone = timm.create_model("swin_base_patch4_window7_224", pretrained=True)
        >>> model.load_state_dict(inflate(backbone.state_dict(), model))
    """
    target = model.state_dict()
    source = _planar_names(state_dict)
    dropped = [] if "patch_embed.norm.weight" in target else ["patch_embed.norm."]
    head, own_head = source.get("head.fc.weight"), target.get("head.fc.weight")
    if head is None or own_head is None or head.shape != own_head.shape:
        dropped.append("head.fc.")
    source = {name: tensor for name, tensor in source.items() if not name.startswith(tuple(dropped))}

    inflated, used = {}, set()
    for name, like in target.items():
        planar = name.replace("layer4_dual.", "layer4.")
        if planar in source:
            used.add(planar)
            tensor = source[planar]
            tensor = stack_kernel(adapt_input_conv(model.in_chans, tensor)) if name in _STEMS else tensor
            inflated[name] = _resize_table(tensor, model, name).clone()  # layer4 fills two places
        elif name.endswith("num_batches_tracked"):
            inflated[name] = torch.tensor(0)
        elif name.startswith("head") or any(part in name for part in _ADDED):
            inflated[name] = like.clone()
    _raise_unless_complete(model, inflated, leftover=[name for name in source if name not in used])
    return inflated


def checkpoint_filter_fn(state_dict: Mapping[str, Tensor], model: ClipModel) -> dict[str, Tensor]:
    """Tensors in this project's names, fitted to another number of channels or other windows of the model.

    Everything else passes through untouched. This is what timm calls a checkpoint filter.

    Raises:
        ConversionError: If the stem or a position table cannot be fitted.
    """
    target = model.state_dict()
    fitted = dict(state_dict)
    try:
        for name in state_dict.keys() & target.keys():
            if fitted[name].shape == target[name].shape:
                continue
            if name in _STEMS:
                fitted[name] = _adapt_stem(fitted[name], model.in_chans)
            else:
                fitted[name] = _resize_table(fitted[name], model, name)
    except (NotImplementedError, RuntimeError) as error:
        raise ConversionError(f"{name} cannot be fitted to {model.in_chans} channels at {model.img_size}") from error
    return fitted


def state_dict_faults(
    target: Mapping[str, Tensor],
    state_dict: Mapping[str, Tensor],
    *,
    leftover: Sequence[str] = (),
    hints: Sequence[tuple[str, str, str]] = (),
) -> list[str]:
    """Why a state_dict does not fit another, a line per kind of fault; empty if it fits.

    Args:
        target: The state_dict of the model.
        state_dict: The tensors for it.
        leftover: Further unexpected names, such as those of a checkpoint's tensors that are of no use.
        hints: Part of a name, advice, kind of fault; the advice is added if such a name has such a fault.

    Returns:
        The names that are missing, unexpected and misshapen, at most 20 of each kind, and the hints.
    """
    faults = {
        "missing": [name for name in target if name not in state_dict],
        "unexpected": [*leftover, *(name for name in state_dict if name not in target)],
        "misshapen": [
            f"{name} {tuple(tensor.shape)} where the model has {tuple(target[name].shape)}"
            for name, tensor in state_dict.items()
            if name in target and tensor.shape != target[name].shape
        ],
    }
    lines = [
        f"{len(names)} {kind}: {', '.join(names[:_MAX_LISTED])}{' ...' if len(names) > _MAX_LISTED else ''}"
        for kind, names in faults.items()
        if names
    ]
    return lines + [hint for part, hint, kind in hints if any(part in name for name in faults[kind])]


def without_prefix(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy, without the prefixes that wrappers of models put in front of every name.

    Raises:
        ConversionError: If a value is not a tensor.
    """
    for name, value in state_dict.items():
        if not isinstance(value, Tensor):
            raise ConversionError(
                f"a state_dict maps names to tensors, got {type(value).__name__} for {name!r}; pass the inner one"
            )
    prefix = wrapper_prefix(state_dict)
    return {name.removeprefix(prefix): tensor for name, tensor in state_dict.items()}


def wrapper_prefix(names: Collection[str]) -> str:
    """What data-parallel training and `torch.compile` put in front of all names, however often and in any order."""
    prefix = ""
    while names:
        longer = (prefix + wrapper for wrapper in _WRAPPERS)
        found = next((start for start in longer if all(name.startswith(start) for name in names)), None)
        if found is None:
            break
        prefix = found
    return prefix


def classifier_name(names: Container[str]) -> str | None:
    """The name of a classifier's weight in a checkpoint, in this project's names or others'; None if it has none."""
    return next((name for name in _CLASSIFIERS if name in names), None)


def without_head(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, but for its classifiers."""
    return {name: tensor for name, tensor in state_dict.items() if not name.startswith(_HEADS)}


def reference_name(name: str) -> str:
    """The published code's name for a tensor of this project's models."""
    for ours, theirs in _PUBLISHED.items():
        name = name.replace(ours, theirs)
    return _move_downsample(name, -1)


def _move_downsample(name: str, by: int) -> str:
    """Patch merging ends a stage in Swin's original and in the published names, and opens the next one in timm's."""
    return re.sub(r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + by}.downsample.", name)


def _reshape(tensor: Tensor, target: Tensor, name: str) -> Tensor:
    """A published 3D kernel as the equivalent 2D one."""
    if name in _STEMS and tensor.ndim == 5:
        return tensor.flatten(1, 2)  # (out, C, 4, h, w) to (out, C*4, h, w)
    if name.endswith(".temporal.conv.weight") and tensor.ndim == 4:
        return tensor.transpose(2, 3)  # time is the height here, the width there
    if tensor.ndim == 5 and target.ndim == 4 and tensor.shape[2] == 1:
        return tensor.squeeze(2)
    return tensor


def _adapt_stem(kernel: Tensor, in_chans: int) -> Tensor:
    """timm's rule for other channels, `(out, C*4, h, w)`, for each of the four frames by itself."""
    frames = kernel.unflatten(1, (-1, STEM_FRAMES)).transpose(1, 2)  # (out, 4, C, h, w)
    adapted = adapt_input_conv(in_chans, frames.flatten(0, 1)).unflatten(0, (-1, STEM_FRAMES))
    return adapted.transpose(1, 2).flatten(1, 2)


def _planar_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A 2D ResNet or Swin in timm's names, its head named as here, without the buffers that older files hold."""
    planar = {name: tensor for name, tensor in without_prefix(state_dict).items() if not name.endswith(_BUFFERS)}
    if "layers.0.downsample.reduction.weight" in planar:  # Swin's original names
        planar = {re.sub(r"^head\.", "head.fc.", _move_downsample(name, 1)): planar[name] for name in planar}
    return {re.sub(r"^fc\.", "head.fc.", name): tensor for name, tensor in planar.items()}


def _resize_table(tensor: Tensor, model: ClipModel, name: str) -> Tensor:
    """A relative position table, brought to the model's window where that is smaller."""
    if not name.endswith("relative_position_bias_table"):
        return tensor
    attention: Any = model.get_submodule(name.rpartition(".")[0])
    shape = attention.relative_position_bias_table.shape
    if tensor.shape == shape or tensor.shape[1] != shape[1]:
        return tensor
    return resize_rel_pos_bias_table(tensor, new_window_size=attention.window_size, new_bias_shape=shape)


def _check_derived(source: Mapping[str, Tensor], model: ClipModel) -> list[str]:
    """Checks what follows from the architecture, where it is present; returns the names of all else that has a use."""
    buffers = dict(model.named_buffers())  # also those that a state_dict leaves out
    leftover = []
    for name, tensor in source.items():
        if name.endswith("def_cor.weight"):
            if not torch.allclose(tensor, torch.full_like(tensor, 1 / tensor.shape[0]), rtol=1e-5):
                raise ConversionError(
                    f"{name} must be the constant 1/{tensor.shape[0]}, as no published checkpoint trains it"
                )
        elif name.endswith(_BUFFERS):
            buffer = buffers.get(name)
            if buffer is None or not torch.equal(tensor.to(buffer.dtype), buffer.cpu()):
                raise ConversionError(
                    f"{name} is not what this architecture has at {model.img_size}; build it at the checkpoint's size"
                )
        elif not _UNUSED.match(name):
            leftover.append(name)
    return leftover


def _raise_unless_complete(model: ClipModel, converted: Mapping[str, Tensor], *, leftover: list[str]) -> None:
    if faults := state_dict_faults(model.state_dict(), converted, leftover=leftover, hints=_HINTS):
        raise ConversionError("; ".join([f"the checkpoint does not fit {type(model).__name__}", *faults]))
