"""Files: the names of those in a run folder, CSV as bytes, and writes that neither a full disk nor a kill can spoil."""

from __future__ import annotations

import csv
import errno
import io
import os
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

# Fine-tuning writes these into a run folder; other commands read them.
CONFIG = "config.json"  # the settings, and what followed from them
STATE = "state.pt"  # everything that resuming needs
BEST = "best.safetensors"  # the weights of the best epoch
LAST = "last.safetensors"  # the weights of the last epoch
LOG = "log.csv"  # a row per epoch
CURVE = "curve.png"  # the log as a picture

_TEMPORARY = ".tmp"


def csv_bytes(rows: Sequence[Mapping[str, object]], *, columns: Sequence[str] = ()) -> bytes:
    """Rows as CSV with a header, a column per key; a cell whose key a row lacks is empty.

    Args:
        rows: What to write.
        columns: Keys whose columns come first, and are there even if there are no rows.
    """
    text = io.StringIO()
    names = list(dict.fromkeys(chain(columns, chain.from_iterable(rows))))
    writer = csv.DictWriter(text, fieldnames=names, lineterminator="\n")
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
    """Whether this is a file that `write_files` did not get to rename because the process was killed."""
    return path.name.startswith(".") and path.suffix == _TEMPORARY


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write files so that each is the old one or the new one, whatever happens: write beside it, sync, then rename.

    Nothing is renamed before everything is written. The renames follow the order given; the first one is the commit.

    Raises:
        OSError: If they cannot be written; then the old files are still there, and no temporary ones.
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
