"""Where training time goes: clips per second, the share of time spent waiting for data, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


class DataClock:
    """Measures how long a loop waits for its batches.

    Args:
        clock: A monotonic clock in seconds.

    Example:
        >>> clock = DataClock()
        >>> for batch in clock.watch([1, 2]):
        ...     pass
        >>> rates = clock.lap(clips=4)
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._lap_start = self._start = clock()
        self._lap_wait = self._wait = 0.0

    def watch(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches; the time until each arrives counts as waiting."""
        iterator = iter(batches)
        while True:
            asked = self._clock()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                self._lap_wait += self._clock() - asked
            yield batch

    def lap(self, *, clips: int) -> dict[str, float]:
        """`clips_per_second` and `data_wait` (a share in [0, 1]) since the last lap, for the `clips` in between."""
        now = self._clock()
        seconds = max(now - self._lap_start, 1e-9)
        rates = {"clips_per_second": clips / seconds, "data_wait": self._lap_wait / seconds}
        self._wait += self._lap_wait
        self._lap_start, self._lap_wait = now, 0.0
        return rates

    @property
    def data_wait(self) -> float:
        """Share of the time spent waiting, over all laps."""
        return self._wait / max(self._lap_start - self._start, 1e-9)


def progress_bar(epoch: int, *, epochs: int, clips: int, done: int = 0, show: bool = True) -> tqdm:
    """A bar over the clips of an epoch (from 1), `done` of them before a resume; tqdm adds rate and time left."""
    title = f"epoch {epoch}/{epochs}"
    return tqdm(total=clips, initial=done, desc=title, unit="clip", dynamic_ncols=True, disable=not show)


def show_update(bar: tqdm, *, clips: int, loss: float, lr: float, data_wait: float) -> None:
    """Advance the bar by an update of `clips`; show the mean loss so far, the learning rate, the share of waiting."""
    bar.set_postfix_str(f"loss {loss:.3f}, lr {lr:.1e}, waiting for data {data_wait:.0%}", refresh=False)
    bar.update(clips)
