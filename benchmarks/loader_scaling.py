"""What a second process adds: to a loader, to bare processes that decode the same clips, and to plain arithmetic.

A loader cannot gain more than bare processes do. Where these gain less than arithmetic, and a clip costs more CPU time
while another process decodes, the two wait for memory or share a core's caches and units; where arithmetic gains less
than twice, the two cores are not whole ones, or others use them. Rounds are interleaved and the fastest of each counts,
because other programs only slow down. Processors that others kept busy meanwhile are told, too: above 0.1, measure
again.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

PROCESSES = (1, 2)


class Arithmetic(Dataset):
    """Sums that need neither memory nor a lock, about 50 ms each."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        return sum(i * i for i in range(index, index + 1_000_000))


def scaling(clips: Dataset, *, rounds: int) -> dict[str, dict[str, Any]]:
    """Items per second and CPU milliseconds per item with one and two processes, and the gain of the second."""
    works: dict[str, tuple[Dataset, Callable[[Dataset, int], None]]] = {
        "loader, two batches ahead": (clips, partial(_load, ahead=2)),
        "loader, four batches ahead": (clips, partial(_load, ahead=4)),
        "bare processes": (clips, _run_bare),
        "arithmetic": (Arithmetic(100), _run_bare),
    }
    runs: dict[str, dict[int, list[dict[str, float]]]] = {name: {n: [] for n in PROCESSES} for name in works}
    for _ in range(rounds):
        for name, (dataset, work) in works.items():
            for processes in PROCESSES:
                runs[name][processes].append(_measure(dataset, work, processes))
    rows = {}
    for name, by_processes in runs.items():
        best = {n: max(some, key=lambda run: run["rate"]) for n, some in by_processes.items()}
        rows[name] = {"gain": best[2]["rate"] / best[1]["rate"], "processes": best}
    return rows


def describe(rows: dict[str, dict[str, Any]]) -> str:
    """A line for each kind of work."""
    lines = []
    for name, row in rows.items():
        one, two = (row["processes"][n] for n in PROCESSES)
        lines.append(
            f"{name}: {one['rate']:.1f} a second with 1 process, {two['rate']:.1f} with 2: {row['gain']:.2f} times; "
            f"{one['cpu_ms']:.0f} and {two['cpu_ms']:.0f} CPU ms each; "
            f"processors used by others: {one['others']:.2f} and {two['others']:.2f}"
        )
    return "\n".join(lines)


def _measure(dataset: Dataset, work: Callable[[Dataset, int], None], processes: int) -> dict[str, float]:
    length = len(dataset)  # type: ignore[arg-type]
    start, own, busy = time.perf_counter(), _own_seconds(), _busy_seconds()
    work(dataset, processes)
    seconds, own, busy = time.perf_counter() - start, _own_seconds() - own, _busy_seconds() - busy
    return {"rate": length / seconds, "cpu_ms": 1e3 * own / length, "others": max(0.0, busy - own) / seconds}


def _load(dataset: Dataset, workers: int, *, ahead: int) -> None:
    """Two batches ahead is PyTorch's default, four is ours. A slow batch stops whoever is that far ahead of it."""
    for _ in DataLoader(dataset, batch_size=4, num_workers=workers, prefetch_factor=ahead):
        pass


def _run_bare(dataset: Dataset, processes: int) -> None:
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=_take, args=(dataset, rank, processes)) for rank in range(processes)]
    for process in started:
        process.start()
    for process in started:
        process.join()


def _take(dataset: Dataset, rank: int, processes: int) -> None:
    length = len(dataset)  # type: ignore[arg-type]
    for index in range(rank * length // processes, (rank + 1) * length // processes):
        dataset[index]


def _own_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    return sum(os.times()[:4])


def _busy_seconds() -> float:
    """CPU time of all programs; what the host took away counts as others'."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, _cpu_line()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _cpu_line() -> list[str]:
    return Path("/proc/stat").read_text().split("\n", 1)[0].split()
