"""A function over many files at once, with a progress bar, that Ctrl-C stops soon.

Threads do: FFmpeg runs without Python's lock. Nothing is drawn ahead of the workers, so a list may be long.
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

_AHEAD = 4  # files per worker that wait for their turn


class Stopped(Exception):
    """Raised by a function that saw its `stop` event: nobody waits for its result any more."""


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel_map(
    function: Callable[[Item, threading.Event], Result], items: Sequence[Item], *, workers: int, text: str
) -> Iterator[tuple[Item, Result]]:
    """Yields items with their results as they are done.

    Args:
        function: Called with an item and an event; once that is set, long work should raise `Stopped`.
        items: What to work on.
        workers: How many at a time, at least 1.
        text: What the progress bar says.

    Raises:
        Exception: The first that `function` raises; what has not begun is dropped then, as it is on Ctrl-C.

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
