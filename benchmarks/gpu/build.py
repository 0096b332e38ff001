"""Versions, and the kernels compiled from nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time

from gpu.record import Record


def run(record: Record, device: str) -> None:
    from sifa_zoo.cli.ops import _versions
    from sifa_zoo.ops import native

    for name, value in _versions().items():
        record.fact(name, value)
    query = "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit"
    for command in (["nvidia-smi", query, "--format=csv,noheader"], ["nvcc", "--version"], ["g++", "--version"]):
        if shutil.which(command[0]):
            said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
            record.fact(command[0], said.splitlines()[0 if command[0] != "nvcc" else -1] if said else "says nothing")
        else:
            record.left_out(command[0], "not on the PATH")
    with record.part("build from nothing"), tempfile.TemporaryDirectory() as cache:
        _build(record, device, cache)
    with record.part("build for the later stages"):
        from sifa_zoo import ops

        ops.build(device)
        for name, value in native.report().items():
            record.fact(name, value)
        state = ops.backends()[device]
        record.expect(f"the kernels of {device} run", state is True, state=state)
    record.fact("libstdc++", ", ".join(sorted(_loaded("libstdc++"))) or "not loaded")


def _build(record: Record, device: str, cache: str) -> None:
    from sifa_zoo import ops

    before = os.environ.get("SIFA_ZOO_CACHE")
    os.environ["SIFA_ZOO_CACHE"] = cache
    try:
        start = time.perf_counter()
        built = [path for path in ops.build(device, force=True) if str(path).startswith(cache)]
        record.row("build", device=device, seconds=round(time.perf_counter() - start, 1), objects=len(built))
    finally:
        del os.environ["SIFA_ZOO_CACHE"]
        if before is not None:
            os.environ["SIFA_ZOO_CACHE"] = before


def _loaded(name: str) -> set[str]:
    """The files of a shared library in this process."""
    try:
        with open("/proc/self/maps", encoding="utf-8") as lines:
            return {line.split()[-1] for line in lines if name in line}
    except FileNotFoundError:
        return set()
