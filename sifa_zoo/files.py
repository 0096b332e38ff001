"""Files that neither a full disk nor a kill can destroy."""

from __future__ import annotations

import csv
import errno
import io
import os
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

_TEMPORARY = ".tmp"


def csv_bytes(rows: Sequence[Mapping[str, object]]) -> bytes:
    """Rows as CSV with a header, a column per key; a key that a row lacks is left empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(dict.fromkeys(chain.from_iterable(rows))), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Refuses a folder that could not be made or written to, before the work that it is to hold.

    Raises:
        ValueError: If something on the way to it is a file, or read-only.
    """
    path = Path(folder).absolute()
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir():
        raise ValueError(f"cannot write to {folder}: {there} is a file, not a folder")
    if not os.access(there, os.W_OK):
        raise ValueError(f"cannot write to {folder}: {there} is read-only")


def is_temporary(path: Path) -> bool:
    """A file of `write_files` that was not renamed, because the process was killed."""
    return path.name.startswith(".") and path.suffix == _TEMPORARY


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write files so that each is either the old one or the new one, whatever happens: beside, synced, then renamed.

    Nothing is renamed before all are written, and then in the order given: the first rename is the commit.

    Raises:
        OSError: If they cannot be written; the old files are still there then, and no temporary file.
    """
    beside = {path: path.with_name(f".{path.name}{_TEMPORARY}") for path in contents}
    try:
        for path, content in contents.items():
            with open(beside[path], "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path in contents:
            os.replace(beside[path], path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "no space left on the disk" if full else error.strerror
        raise OSError(error.errno, f"{reason} while saving {path}; what was saved before is untouched") from error
    finally:
        for path in beside.values():
            path.unlink(missing_ok=True)
