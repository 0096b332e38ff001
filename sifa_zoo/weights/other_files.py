"""What lies where a `model.safetensors` should be, and the way out."""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import chain, islice
from pathlib import Path, PurePosixPath

from sifa_zoo.files import STATE

PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl")
_PART = re.compile(r"-\d+-of-(\d+)\.safetensors$")
_MERGE = (
    "merge its parts into one model.safetensors: `from safetensors.torch import load_file, save_file; "
    "save_file({n: t for part in PARTS for n, t in load_file(part).items()}, 'model.safetensors')`"
)
_UNPICKLE = (
    "save with timm's save_for_hf(model, folder, safe_serialization=True), or convert it: "
    "`safetensors.torch.save_file(torch.load('{name}', weights_only=True), 'model.safetensors')`"
)
_TOP = PurePosixPath()
_MOST = 10_000  # of a folder's files are looked at


def is_sharded(name: str) -> bool:
    """Whether a file's name is that of a part of sharded weights, or of their index."""
    part = _PART.search(name)
    return name.endswith(".safetensors.index.json") or (part is not None and int(part[1]) > 1)


def sharded(name: str) -> str:
    """That weights are sharded, and how to merge them."""
    return f"{name} belongs to sharded weights, which are not loaded; {_MERGE}"


def what_else(names: Collection[str], place: str) -> str:
    """What there is instead of a `model.safetensors`, for the end of a message; empty if nothing of use.

    Args:
        names: Paths of all files, from the top of the folder or repository.
        place: `local-dir:PATH` or `hf-hub:owner/name`.
    """
    paths = [PurePosixPath(name) for name in sorted(names) if name != STATE]
    if parts := [str(path) for path in paths if is_sharded(path.name)]:
        return f"; {sharded(parts[-1])}"
    found = [path for path in paths if path.suffix == ".safetensors"]
    pickles = [path for path in paths if path.suffix in PICKLES and path.parent == _TOP]
    local = place.startswith("local-dir:")
    take = f"{'' if local else 'download it and '}pass its path (checkpoint_path= of create_model)"
    if top := next((path for path in found if path.parent == _TOP), None):
        return f"; there is {top}: {take}"
    if found:
        load = f"load {place}/{found[0].parent}" if local and found[0].name == "model.safetensors" else take
        return f"; {found[0]} lies in a subfolder: {load}"
    if pickles:
        name = max(pickles, key=lambda path: path.stem == "pytorch_model")  # there may be an optimiser beside it
        return f"; {name} is a pickle, which is not loaded: {_UNPICKLE.format(name=name)}"
    return ""


def files_in(folder: Path) -> list[str]:
    """The files of a folder and its subfolders, as `what_else` takes them."""
    paths = islice(chain(folder.glob("*"), folder.glob("*/*")), _MOST)
    return [path.relative_to(folder).as_posix() for path in paths if path.is_file()]
