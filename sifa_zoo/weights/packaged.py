"""Weights that a package of the Python index brings along: found, checked and renamed, without a network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sifa_zoo.weights.hub import CorruptError, check_file
from sifa_zoo.weights.manifest import Entry, packaged_file

_DEPTHS = ((1, 2, 2, 3, 3, 4, 1), (1, 3, 3, 4, 4, 5, 1))  # blocks per stage of EfficientNet-Lite0, and of 1 and 2
_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST_STAGE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LATER_STAGES = {
    **{"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw"},
    **{"_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"},
}


def read_packaged(entry: Entry) -> dict[str, Tensor]:
    """The tensors of an entry of status "packaged", in timm's names.

    Raises:
        CorruptError: If the file is another than the manifest's, or holds other tensors.
    """
    path = packaged_file(entry)
    assert path is not None  # such an entry loads only where the package is
    check_file(path, sha256=entry.sha256, size=entry.bytes)
    return _in_timm_names(torch.load(path, map_location="cpu", weights_only=True), path)


def _in_timm_names(state_dict: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """EfficientNet-Lite in the names of `efficientnet_pytorch`, renamed."""
    numbers = {int(match[1]) for name in state_dict if (match := _BLOCK.fullmatch(name))}
    depths = next((depths for depths in _DEPTHS if sum(depths) == len(numbers)), ())
    blocks = [(stage, index) for stage, depth in enumerate(depths) for index in range(depth)]
    renamed = {}
    for name, tensor in state_dict.items():
        try:
            if match := _BLOCK.fullmatch(name):
                stage, index = blocks[int(match[1])]
                parts = _LATER_STAGES if stage else _FIRST_STAGE
                renamed[f"blocks.{stage}.{index}.{parts[match[2]]}.{match[3]}"] = tensor
            else:
                module, _, kind = name.partition(".")
                renamed[f"{_OUTSIDE[module]}.{kind}"] = tensor
        except (KeyError, IndexError) as error:
            raise CorruptError(f"{path}: {name} is no tensor of EfficientNet-Lite") from error
    return renamed
