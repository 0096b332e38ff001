"""The sha256 that the Hub stated for a large file when it was downloaded into the cache.

In a cache with symbolic links it is the name of the blob that the file's link leads to. In one without, the name is
lost, so it is written down: in `.sha256/COMMIT/FILE`, beside the `snapshots` of the repository.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import NamedTuple

from sifa_zoo.files import write_files

_SHA256 = re.compile(r"[0-9a-f]{64}")  # small files have a sha1 of git's instead


class Stated(NamedTuple):
    """What the Hub answers when it is asked for a file: its commit, and its sha256 if it is a large file."""

    commit: str | None
    etag: str | None


def stated_sha256(path: Path, file: str) -> str | None:
    """The stated hash of a file in the cache; None if it is not known.

    Args:
        path: Where it is in the cache.
        file: Its path in the repository.
    """
    if path.is_symlink():
        known = path.readlink().name  # not where it leads in the end: a shared blob is named by another hash
    else:
        note = _note(path, file)
        known = note.read_text().strip() if note.is_file() else ""
    return known if _SHA256.fullmatch(known) else None


def remember_sha256(path: Path, file: str, stated: Stated | None) -> None:
    """Write down what the Hub stated, if it was about this commit; a cache that cannot be written stays as it is."""
    if stated and stated.commit in path.parts and _SHA256.fullmatch(stated.etag or ""):
        note = _note(path, file)
        with contextlib.suppress(OSError):
            note.parent.mkdir(parents=True, exist_ok=True)
            write_files({note: f"{stated.etag}\n".encode()})


def forget_sha256(path: Path, file: str) -> None:
    """Remove what was written down."""
    if not path.is_symlink():
        _note(path, file).unlink(missing_ok=True)


def _note(path: Path, file: str) -> Path:
    snapshots = path.parents[len(Path(file).parts)]
    return snapshots.parent / ".sha256" / path.relative_to(snapshots)
