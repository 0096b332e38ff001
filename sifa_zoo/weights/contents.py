"""What is in a safetensors file: its description, its tensors, its number of classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from sifa_zoo.models.convert import classifier_name, without_prefix, wrapper_prefix
from sifa_zoo.weights.hub import CorruptError, WeightsError
from sifa_zoo.weights.info import METADATA_KEY, WeightsInfo
from sifa_zoo.weights.other_files import PICKLES, is_sharded, sharded


def file_info(path: str | Path) -> WeightsInfo | None:
    """What a weights file says about itself; None if it says nothing.

    Raises:
        WeightsError: If there is no such file, or it is not a safetensors file.
    """
    with _open(path) as file:
        metadata = file.metadata() or {}
    try:
        return WeightsInfo.from_json(metadata[METADATA_KEY]) if METADATA_KEY in metadata else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptError(f"{path}: its metadata {METADATA_KEY!r} cannot be read ({error!r})") from error


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, copied: mapped from the file they would change when it is overwritten.

    Prefixes of wrappers, `module.` and `_orig_mod.`, are removed where all names have them.

    Raises:
        WeightsError: If there is no such file, or it is not a safetensors file.
    """
    with _open(path) as file:
        names = file.keys()
        return without_prefix({name: file.get_tensor(name).clone() for name in names})


def count_classes(path: str | Path) -> int | None:
    """How many classes a file's classifier has, named as here or as in a 2D trunk; None if it has no classifier.

    Raises:
        WeightsError: If there is no such file, or it is not a safetensors file.
    """
    with _open(path) as file:
        names = file.keys()
        prefix = wrapper_prefix(names)
        name = classifier_name([name.removeprefix(prefix) for name in names])
        return file.get_slice(prefix + name).get_shape()[0] if name else None


def _open(path: str | Path) -> Any:
    path = Path(path)
    if is_sharded(path.name):
        raise WeightsError(f"{path}: {sharded(path.name)}")
    if path.suffix in PICKLES:
        raise WeightsError(
            f"{path}: only safetensors files are loaded; convert it with "
            f"`sifa-zoo convert {path} --model NAME --output FILE`"
        )
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise CorruptError(f"{path}: not a safetensors file, or damaged ({error})") from error
