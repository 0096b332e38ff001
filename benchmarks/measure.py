"""Flags, times, peak memory, the name of the machine and the file of figures, alike in all benchmarks here."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler is not to talk

import torch


def benchmark_parser(text: str | None, *, devices: bool = False) -> argparse.ArgumentParser:
    """A parser with the help of a benchmark, and its flag `--json`; with `devices` also those that choose one."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    if devices:
        parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
        parser.add_argument("--threads", type=int, default=2, help="of a CPU")
    return parser


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def write_json(path: Path | None, figures: dict) -> None:
    """Writes figures where `--json` says."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=2) + "\n")


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def time_call(call: Callable[[], object], device: str, repeats: int = 1) -> float:
    """Seconds of a call."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    synchronize(device)
    return (time.perf_counter() - start) / repeats


def median_seconds(calls: dict[str, Callable[[], object]], device: str, rounds: int) -> dict[str, float]:
    """The median time of each call; short ones are repeated within a round, so that the clock can tell."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = max(1, int(0.01 / time_call(call, device)))
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(time_call(call, device, repeats[name]))
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_bytes(call: Callable[[], object], device: str) -> int:
    """Bytes that `call` holds at most beyond what was held before."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = call()
    del result
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"
