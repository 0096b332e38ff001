"""`weights_manifest.json`: all weights that exist or have a name reserved, and what is known about each.

`docs/weights.md` says what the fields mean, `docs/weights_manifest.schema.json` what they may hold.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sifa_zoo.config import ClipConfig

STATUSES = ("published", "embedded", "packaged", "unpublished")
FORMATS = ("sifa_zoo", "timm", "efficientnet_pytorch")
FILE = "weights_manifest.json"
_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Entry:
    """One entry of the manifest; None stands for what is not known.

    `format` is "sifa_zoo" for this project's names, "timm" for a 2D trunk that is inflated when it is loaded, and the
    name of another project whose tensors are renamed. Of a status "packaged", `repo` is a package of the Python index,
    `revision` its version, and `file` the path from where packages are installed.
    `logits` are the first ones that the model gives for the clip of `sifa_zoo.publishing.fixed_clip`.

    Raises:
        ValueError: If `status` or `format` is not one of those that exist.
    """

    status: str
    trained_on: str
    repo: str | None = None
    file: str | None = None
    revision: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    hash_source: str | None = None
    format: str = "sifa_zoo"
    licence: str | None = None
    num_classes: int | None = None
    class_names: list[str] | dict[str, str] | None = None
    clip: dict[str, Any] | None = None
    protocol: str | None = None
    figures: list[dict[str, Any]] = field(default_factory=list)
    model_args: dict[str, Any] = field(default_factory=dict)
    logits: list[float] | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status must be one of {STATUSES}, got {self.status!r}")
        if self.format not in FORMATS:
            raise ValueError(f"format must be one of {FORMATS}, got {self.format!r}")

    @property
    def loads(self) -> bool:
        """Whether these weights can be loaded today, in this environment."""
        return self.status != "unpublished" and (self.status != "packaged" or packaged_file(self) is not None)

    @property
    def clip_config(self) -> ClipConfig:
        """How clips are cut for these weights."""
        return ClipConfig(**self.clip or {})

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of the manifest."""
        return dataclasses.asdict(self)


def packaged_file(entry: Entry) -> Path | None:
    """Where the file of an entry of status "packaged" is; None if its package is not installed."""
    module, _, rest = str(entry.file).partition("/")
    found = importlib.util.find_spec(module)
    return Path(found.origin).parent / rest if found and found.origin else None


def manifest_path() -> Path:
    """The manifest: inside an installed package, or at the top of a clone."""
    inside = _PACKAGE / FILE
    return inside if inside.is_file() else _PACKAGE.parent / FILE


@functools.cache
def read_manifest() -> Mapping[str, Entry]:
    """Entries by `architecture.tag`; the first of an architecture that loads is its default."""
    return parse_manifest(manifest_path().read_text(encoding="utf-8"))


def parse_manifest(text: str) -> dict[str, Entry]:
    """Entries of a manifest in JSON.

    Raises:
        ValueError: If it is not JSON, or an entry lacks a field, has one too many, or is of no known status or format.
    """
    try:
        return {name: Entry(**values) for name, values in json.loads(text)["weights"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a weights manifest: {error}") from error


def manifest_with(text: str, name: str, entry: Entry) -> str:
    """The JSON of a manifest with an entry replaced, or added at its end."""
    manifest = json.loads(text)
    manifest["weights"][name] = entry.to_dict()
    return json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
