"""From a name to a checked file: `find_weights`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sifa_zoo.files import BEST
from sifa_zoo.weights.contents import file_info
from sifa_zoo.weights.hub import (
    CONFIG,
    WEIGHTS,
    MissingFileError,
    UnpublishedError,
    WeightsError,
    check_file,
    download,
    list_files,
    split_repo,
)
from sifa_zoo.weights.info import WeightsInfo
from sifa_zoo.weights.manifest import Entry, read_manifest
from sifa_zoo.weights.model_config import info_of_config, read_config
from sifa_zoo.weights.other_files import files_in, what_else

SCHEMES = ("hf-hub:", "hf_hub:", "local-dir:")  # the second is timm's older spelling of the first
EMBEDDED = Path(__file__).parent / "embedded"


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
        return _in_folder(Path(rest), name)
    if scheme in ("hf-hub", "hf_hub"):
        return _on_hub(rest, name, cache_dir)
    return _in_manifest(name, cache_dir)


def _in_folder(folder: Path, name: str) -> Weights:
    if not folder.is_dir():
        raise WeightsError(f"{name}: no such folder")
    path = weights_file(folder)
    described = path.name == WEIGHTS and (folder / CONFIG).is_file()  # a run's config.json is of another kind
    config = read_config(folder / CONFIG, name) if described else {}
    stated = config.get("sifa_zoo", {})
    check_file(path, sha256=stated.get("sha256"))
    info = file_info(path) or (info_of_config(config, name) if described else None)
    if info is None:
        raise WeightsError(f"{name}: neither {path.name} nor a {CONFIG} says which model it is; use checkpoint_path=")
    return Weights(path, name, info, logits=stated.get("logits"))


def _on_hub(hub_id: str, name: str, cache_dir: str | Path | None) -> Weights:
    repo, revision = split_repo(hub_id)
    try:
        config_path = download(repo, CONFIG, revision=revision, cache_dir=cache_dir)
        config = read_config(config_path, name)
        stated = config.get("sifa_zoo", {})
        commit = config_path.parent.name  # that of the config, should the branch move between the two downloads
        path = download(repo, WEIGHTS, revision=commit, cache_dir=cache_dir, sha256=stated.get("sha256"))
    except MissingFileError as error:
        raise MissingFileError(f"{error}{what_else(list_files(repo, revision), name)}") from error
    info = file_info(path) or info_of_config(config, name)
    return Weights(path, name, info, logits=stated.get("logits"), cfg={"hf_hub_id": hub_id})


def _in_manifest(name: str, cache_dir: str | Path | None) -> Weights:
    full_name, entry = find_entry(name)
    if entry.status == "packaged":
        raise WeightsError(
            f"{full_name} are weights of an image model: create_model({name!r}, pretrained=True) uses them"
        )
    known: dict[str, Any] = {"sha256": entry.sha256, "size": entry.bytes}
    if entry.status == "embedded":
        path = EMBEDDED / str(entry.file)
        check_file(path, **known)
    else:
        path = download(str(entry.repo), str(entry.file), revision=entry.revision, cache_dir=cache_dir, **known)
    hub_id = f"{entry.repo}{f'@{entry.revision}' if entry.revision else ''}" if entry.repo else None
    architecture, _, tag = full_name.partition(".")
    cfg = {"tag": tag, "license": entry.licence, "hf_hub_id": hub_id}
    info = file_info(path) or _info_of_entry(architecture, entry)
    return Weights(path, full_name, info, entry.format, entry.logits, cfg)


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


def _info_of_entry(architecture: str, entry: Entry) -> WeightsInfo:
    """What the manifest says about a file that says nothing about itself, such as a 2D trunk of timm."""
    names = tuple(entry.class_names) if isinstance(entry.class_names, list) else ()
    return WeightsInfo(architecture, names, entry.clip_config, version="", model_args=entry.model_args)


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


def find_file(path: str | Path) -> Weights:
    """A weights file that the user names.

    Raises:
        WeightsError: If there is no such file, or it is not a safetensors file.
    """
    return Weights(Path(path), str(path), file_info(path))


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
    instead = what_else(files_in(path), f"local-dir:{path}")
    raise WeightsError(
        f"{path} holds no {BEST} (as `sifa-zoo finetune` writes) and no {WEIGHTS} (as on the Hub){instead}"
    )
