"""Calls a function on many files in parallel, with a progress bar; Ctrl-C stops it soon.

Threads are enough, because FFmpeg runs without Python's lock. Only a few files are queued ahead of the workers, so a
list may be long.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 4  # files per worker that are queued or in work


class Stopped(Exception):
    """What `until_stopped` raises; the result of the work is no longer wanted."""


def until_stopped(items: Iterable[Item], stop: threading.Event) -> Iterator[Item]:
    """The items one by one, for long work to go through; raises `Stopped` once the event is set."""
    for item in items:
        if stop.is_set():
            raise Stopped
        yield item


def parallel_map(
    function: Callable[[Item, threading.Event], Result],
    items: Sequence[Item],
    *,
    workers: int,
    text: str,
    unit: str = "video",
    quiet: bool = False,
) -> Iterator[tuple[Item, Result]]:
    """Yields items with their results, as these become ready.

    Args:
        function: Called with an item and an event, which long work hands to `until_stopped`.
        items: The arguments.
        workers: Items at a time, at least 1.
        text: Label of the progress bar.
        unit: What the bar counts.
        quiet: Show no bar.

    Raises:
        Exception: The first one that `function` raises. Items not begun are dropped then, as they are on Ctrl-C.

    Example:
        >>> sorted(parallel_map(lambda item, stop: item + 1, [1, 2], workers=2, text="add"))
        [(1, 2), (2, 3)]
    """
    stop = threading.Event()
    remaining = iter(items)
    pool = ThreadPoolExecutor(workers)

    def submit(count: int) -> dict[Future[Result], Item]:
        return {pool.submit(function, item, stop): item for item in islice(remaining, count)}

    try:
        with tqdm(
            total=len(items), desc=text, unit=unit, dynamic_ncols=True, mininterval=0.2, disable=quiet or not items
        ) as bar:
            pending = submit(_AHEAD * workers)
            while pending:
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    bar.update()
                    yield pending.pop(future), future.result()
                    pending |= submit(1)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def parallel_dict(
    function: Callable[[Item, threading.Event], Result | None], items: Sequence[Item], *, workers: int, text: str
) -> dict[Item, Result]:
    """The results of `parallel_map` that are not None, in the order of the items."""
    results = dict(parallel_map(function, items, workers=workers, text=text))
    return {item: result for item in items if (result := results[item]) is not None}
