"""Versions, and the kernels compiled from nothing."""

from __future__ import annotations

import shutil
import subprocess
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
    with record.part("build"):
        from sifa_zoo import ops

        start = time.perf_counter()
        ops.build(device, force=True)
        record.row("build", device=device, seconds=round(time.perf_counter() - start, 1))
        for name, value in native.report().items():
            record.fact(name, value)
        state = ops.backends()[device]
        record.expect(f"the kernels of {device} run", state is True, state=state)
    record.fact("libstdc++", ", ".join(sorted(_loaded("libstdc++"))) or "not loaded")


def _loaded(name: str) -> set[str]:
    """The files of a shared library in this process."""
    try:
        with open("/proc/self/maps", encoding="utf-8") as lines:
            return {line.split()[-1] for line in lines if name in line}
    except FileNotFoundError:
        return set()
