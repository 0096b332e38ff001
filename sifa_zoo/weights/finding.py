"""Weights by name: `find_weights` gets a checked file, `load_weights` puts its tensors into a model."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from sifa_zoo.config import ClipConfig
from sifa_zoo.files import BEST
from sifa_zoo.models.convert import classifier_name
from sifa_zoo.weights.hub import (
    CONFIG,
    WEIGHTS,
    CorruptError,
    MismatchError,
    UnpublishedError,
    WeightsError,
    check_file,
    download,
    split_repo,
)
from sifa_zoo.weights.info import METADATA_KEY, WeightsInfo
from sifa_zoo.weights.manifest import Entry, read_manifest

SCHEMES = ("hf-hub:", "local-dir:")
EMBEDDED = Path(__file__).parent / "embedded"
_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl")


@dataclass(frozen=True)
class Weights:
    """A file on this machine, its bytes checked if its hash is known, and what is known about it.

    `source` is its name in messages, `format` as in the manifest. `info` is None where nothing says what the file
    holds. `logits` are the stored ones for `publishing.fixed_clip`, `cfg` further entries for `pretrained_cfg`.
    """

    path: Path
    source: str
    info: WeightsInfo | None
    format: str = "sifa_zoo"
    logits: list[float] | None = None
    cfg: dict[str, Any] = field(default_factory=dict)


def find_weights(name: str, *, cache_dir: str | Path | None = None) -> Weights:
    """The weights that a name stands for, downloaded if they are not on this machine yet.

    Args:
        name: `architecture.tag`, an architecture for its default weights, `hf-hub:owner/name@revision`, or
            `local-dir:PATH`.
        cache_dir: As in `hub.download`.

    Raises:
        WeightsError: Its subclass says why there are none.
    """
    scheme, _, rest = name.partition(":")
    if scheme == "local-dir":
        return _of_folder(Path(rest), name)
    if scheme == "hf-hub":
        repo, revision = split_repo(rest)
        config_path = download(repo, CONFIG, revision=revision, cache_dir=cache_dir)
        config = _read_config(config_path, name)
        stated = config.get("sifa_zoo", {})
        # the commit that the config came from, should the branch move between the two downloads
        path = download(
            repo, WEIGHTS, revision=config_path.parent.name, cache_dir=cache_dir, sha256=stated.get("sha256")
        )
        info = file_info(path) or _info_of(config, name)
        return Weights(path, name, info, logits=stated.get("logits"), cfg={"hf_hub_id": rest})
    return _of_entry(name, cache_dir)


def locate_weights(source: str | os.PathLike[str]) -> Weights:
    """The weights of a run folder (the best) or of a file; where there is no such path, those of a name.

    Raises:
        WeightsError: If it is neither; its subclass says why there are none.
    """
    name = os.fspath(source)
    if os.path.exists(name):
        return find_file(weights_file(name))
    if ":" in name or any(entry.partition(".")[0] == name.partition(".")[0] for entry in read_manifest()):
        return find_weights(name)
    raise WeightsError(f"{name}: no such run folder or weights file")


def find_entry(name: str) -> tuple[str, Entry]:
    """The full name and the manifest entry of `architecture.tag`, or of an architecture's default weights.

    Raises:
        UnpublishedError: If there are no such weights; those that load are listed.
    """
    architecture, _, tag = name.partition(".")
    entries = read_manifest()
    loadable = [n for n, entry in entries.items() if entry.loads]
    full_name = name if tag else next((n for n in loadable if n.startswith(f"{architecture}.")), name)
    entry = entries.get(full_name)
    if entry is None or not entry.loads:
        why = "the authors of SIFA released none, and nobody has since" if entry else "the manifest has no such entry"
        raise UnpublishedError(
            f"there are no weights {full_name!r}: {why}. These load: {', '.join(loadable)}. "
            "Load weights of your own with checkpoint_path=, or build the model without any with pretrained=False"
        )
    return full_name, entry


def find_file(path: str | Path) -> Weights:
    """A weights file that the user names.

    Raises:
        WeightsError: If there is no such file, or it is not a safetensors file.
    """
    return Weights(Path(path), str(path), file_info(path))


def file_info(path: str | Path) -> WeightsInfo | None:
    """What a weights file says about itself; None if it says nothing.

    Raises:
        WeightsError: If there is no such file, or it is not a safetensors file.
    """
    with _open(path) as file:
        metadata = file.metadata() or {}
    try:
        return WeightsInfo.from_json(metadata[METADATA_KEY]) if METADATA_KEY in metadata else None
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(f"{path}: its metadata {METADATA_KEY!r} cannot be read ({error!r})") from error


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, copied: mapped from the file they would change when it is overwritten.

    Raises:
        WeightsError: If there is no such file, or it is not a safetensors file.
    """
    with _open(path) as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dictionary)


def count_classes(path: str | Path) -> int | None:
    """How many classes a file's classifier has, named as here or as in a 2D trunk; None if it has no classifier.

    Raises:
        WeightsError: If there is no such file, or it is not a safetensors file.
    """
    with _open(path) as file:
        name = classifier_name(file.keys())
        return file.get_slice(name).get_shape()[0] if name else None


def weights_file(folder: str | Path) -> Path:
    """The weights of a folder, as published or as `sifa-zoo finetune` leaves it (the best); or the file itself.

    Raises:
        WeightsError: If there are none.
    """
    path = Path(folder)
    if path.is_file():
        return path
    if not path.is_dir():
        raise WeightsError(f"{path}: no such run folder or weights file")
    for name in (WEIGHTS, BEST):
        if (path / name).is_file():
            return path / name
    raise WeightsError(f"{path} holds no {BEST} (as `sifa-zoo finetune` writes) and no {WEIGHTS} (as on the Hub)")


def _of_entry(name: str, cache_dir: str | Path | None) -> Weights:
    """Weights of the manifest."""
    full_name, entry = find_entry(name)
    if entry.status == "embedded":
        path = EMBEDDED / str(entry.file)
        check_file(path, sha256=entry.sha256, size=entry.bytes)
    else:
        path = download(
            str(entry.repo),
            str(entry.file),
            revision=entry.revision,
            cache_dir=cache_dir,
            sha256=entry.sha256,
            size=entry.bytes,
        )
    hub_id = f"{entry.repo}{f'@{entry.revision}' if entry.revision else ''}" if entry.repo else None
    architecture, _, tag = full_name.partition(".")
    cfg = {"tag": tag, "license": entry.licence, "hf_hub_id": hub_id}
    info = file_info(path) or _info_of_entry(architecture, entry)
    return Weights(path, full_name, info, entry.format, entry.logits, cfg)


def _info_of_entry(architecture: str, entry: Entry) -> WeightsInfo:
    """What the manifest says about a file that says nothing about itself, such as a 2D trunk of timm."""
    names = tuple(entry.class_names) if isinstance(entry.class_names, list) else ()
    return WeightsInfo(architecture, names, entry.clip_config, version="", model_args=entry.model_args)


def _of_folder(folder: Path, name: str) -> Weights:
    if not folder.is_dir():
        raise WeightsError(f"{name}: no such folder")
    path = weights_file(folder)
    config = _read_config(folder / CONFIG, name) if path.name == WEIGHTS and (folder / CONFIG).is_file() else {}
    stated = config.get("sifa_zoo", {})
    check_file(path, sha256=stated.get("sha256"))
    info = file_info(path) or (_info_of(config, name) if config else None)
    if info is None:
        raise WeightsError(f"{name}: neither {path.name} nor a {CONFIG} says which model it is; use checkpoint_path=")
    return Weights(path, name, info, logits=stated.get("logits"))


def _read_config(path: Path, name: str) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return {**config, "architecture": str(config["architecture"])}
    except (ValueError, KeyError, TypeError) as error:
        raise MismatchError(f"{name}: {CONFIG} does not name a model of this project ({error!r})") from error


def _info_of(config: dict[str, Any], name: str) -> WeightsInfo:
    """What a `config.json` in timm's form says about the weights beside it."""
    cfg = config.get("pretrained_cfg", {})
    labels = tuple(config.get("label_names") or cfg.get("label_names") or ())
    known = {key: cfg[key] for key in ("num_frames", "frame_stride", "fps", "crop_pct", "mean", "std") if key in cfg}
    try:
        clip = ClipConfig(img_size=cfg["input_size"][-1], **known)
    except (KeyError, ValueError) as error:
        raise MismatchError(f"{name}: {CONFIG} does not say how clips are cut ({error!r})") from error
    return WeightsInfo(config["architecture"], labels, clip, version="", model_args=config.get("model_args") or {})


def _open(path: str | Path) -> Any:
    path = Path(path)
    if path.suffix in _PICKLES:
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
