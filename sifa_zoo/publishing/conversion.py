"""Converts other projects' checkpoints to weights files of this one, as `sifa-zoo convert` does."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sifa_zoo import __version__
from sifa_zoo.files import write_files
from sifa_zoo.models.convert import classifier_name, from_reference, inflate, state_dict_faults, without_prefix
from sifa_zoo.registry.create import create_model
from sifa_zoo.runtime.checkpoint import clip_config, pack_weights
from sifa_zoo.weights.contents import read_weights
from sifa_zoo.weights.info import WeightsInfo

_WRAPPERS = ("state_dict", "model", "model_state")


def convert_file(
    checkpoint: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    model: str,
    class_names: Sequence[str] = (),
    model_args: Mapping[str, Any] | None = None,
) -> tuple[Path, str]:
    """Convert a checkpoint of the published SIFA code, of a 2D ResNet or Swin in timm's names, or of a model as here.

    The kind, the number of classes, a second branch and a missing patch norm are recognised from the tensors.

    Args:
        checkpoint: A PyTorch pickle (`.pth`, read with `weights_only=True`), or a safetensors file.
        output: The safetensors file to write; must not exist.
        model: The model's name.
        class_names: One per class, if known; prediction needs them.
        model_args: Further arguments of the model's constructor, such as `kernel_size`.

    Returns:
        The file, and the kind of the checkpoint: "published", "2D" or "sifa_zoo".

    Raises:
        ValueError: If the checkpoint cannot be read, or does not fit (`ConversionError`).
    """
    output = Path(output)
    if output.suffix != ".safetensors" or output.exists():
        raise ValueError(f"output must be a new file ending in .safetensors, got {output}")
    tensors = read_checkpoint(checkpoint)
    kind, arguments = recognise(tensors)
    arguments |= model_args or {}
    net = create_model(model, num_classes=arguments.pop("num_classes", None), **arguments)
    if class_names and len(class_names) != net.num_classes:
        raise ValueError(f"class_names must be {net.num_classes} names, one per class, got {len(class_names)}")
    if not state_dict_faults(net.state_dict(), tensors):
        kind = "sifa_zoo"  # such as timm's `save_for_hf` leaves
    else:
        tensors = (from_reference if kind == "published" else inflate)(tensors, net)  # type: ignore[arg-type]
    net.load_state_dict(tensors, strict=True)
    info = WeightsInfo(model, tuple(class_names), clip_config(net), version=__version__, model_args=arguments)
    write_files({output: pack_weights(net.state_dict(), info)})
    return output, kind


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a checkpoint; nothing in it is executed.

    Raises:
        ValueError: If there is no such file, or it holds more than tensors.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return without_prefix(read_weights(path))
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path}: cannot be read without executing what is in it ({reason}); if you trust it, load it yourself "
            "and save the state_dict alone: torch.save(checkpoint['state_dict'], 'tensors.pth')"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise ValueError(f"{path}: expected a state_dict, or one under {', '.join(_WRAPPERS)}")
    return without_prefix({str(name): tensor for name, tensor in found.items()})


def recognise(tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """Whether a checkpoint is "published" or "2D", and the model arguments that its tensors imply."""
    stem = next((tensors[name] for name in ("conv1.weight", "patch_embed.proj.weight") if name in tensors), None)
    head = classifier_name(tensors)
    arguments: dict[str, Any] = {} if head is None else {"num_classes": tensors[head].shape[0]}
    if stem is None or stem.ndim != 5:  # in the published code the stem is a 3D convolution
        return "2D", arguments
    if "conv1.weight" in tensors:
        return "published", arguments | {"dual_head": any(name.startswith("layer4_dual.") for name in tensors)}
    return "published", arguments | {"patch_norm": "patch_embed.norm.weight" in tensors}
