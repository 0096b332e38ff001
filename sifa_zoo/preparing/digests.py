"""Finds files with the same bytes. Only files of equal size are read."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from functools import partial

from sifa_zoo.preparing.parallel_map import parallel_dict, until_stopped


def digests(paths: Iterable[str], *, workers: int) -> dict[str, bytes]:
    """Hashes of the files that share their size with another; those that cannot be read have none."""
    by_size = defaultdict(set)
    for path in paths:
        with suppress(OSError):
            if os.path.isfile(path):
                by_size[os.path.getsize(path)].add(path)
    candidates = sorted(path for group in by_size.values() if len(group) > 1 for path in group)
    return parallel_dict(_digest, candidates, workers=workers, text="compare") if candidates else {}


def _digest(path: str, stop: threading.Event) -> bytes | None:
    digest = hashlib.blake2b()
    try:
        with open(path, "rb") as file:
            for block in until_stopped(iter(partial(file.read, 1 << 20), b""), stop):
                digest.update(block)
    except OSError:
        return None
    return digest.digest()
