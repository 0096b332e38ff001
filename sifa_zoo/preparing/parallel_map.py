"""Calls a function on many files in parallel, with a progress bar; Ctrl-C stops it soon.

Threads are enough, because FFmpeg runs without Python's lock. Only a few files are queued ahead of the workers, so a
list may be long.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 4  # files per worker that are queued or in work


class Stopped(Exception):
    """For a function to raise when its `stop` event is set: its result is no longer wanted."""


def usable_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel_map(
    function: Callable[[Item, threading.Event], Result], items: Sequence[Item], *, workers: int, text: str
) -> Iterator[tuple[Item, Result]]:
    """Yields items with their results, as these become ready.

    Args:
        function: Called with an item and an event; once the event is set, long work should raise `Stopped`.
        items: The arguments.
        workers: Items at a time, at least 1.
        text: Label of the progress bar.

    Raises:
        Exception: The first one that `function` raises. Items not begun are dropped then, as they are on Ctrl-C.

    Example:
        >>> sorted(parallel_map(lambda item, stop: item + 1, [1, 2], workers=2, text="add"))
        [(1, 2), (2, 3)]
    """
    stop = threading.Event()
    pending: dict[Future[Result], Item] = {}
    remaining = iter(items)
    pool = ThreadPoolExecutor(workers)
    try:
        with tqdm(total=len(items), desc=text, unit="video", dynamic_ncols=True, mininterval=0.2) as bar:
            while True:
                for item in remaining:
                    pending[pool.submit(function, item, stop)] = item
                    if len(pending) >= _AHEAD * workers:
                        break
                if not pending:
                    return
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    bar.update()
                    yield pending.pop(future), future.result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
