"""Runs a stage in a process group of its own, which is killed at its limit; what it has written stays."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu.stages import Stage

CHECK = Path(__file__).resolve().parents[1] / "gpu_check.py"


def run_stage(
    stage: Stage, device: str, folder: Path, *, limit: float, seen: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Runs a stage, passing each line that it writes to `seen`; returns how it ended."""
    if stage.needs_gpu and device == "cpu":
        return {"status": "left out", "why": "no GPU", "seconds": 0.0}
    if missing := [name for name in stage.needs if importlib.util.find_spec(name) is None]:
        return {"status": "left out", "why": f"no {', '.join(missing)}", "seconds": 0.0}
    lines, log = folder / f"{stage.name}.jsonl", folder / f"{stage.name}.log"
    lines.write_text("")
    command = [sys.executable, str(CHECK), "--child", stage.module, "--lines", str(lines), "--device", device]
    command += ["--seconds", str(limit)]
    start = time.monotonic()
    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        try:
            code = _follow(process, lines, start + limit, seen)
        finally:
            _kill_group(process)
    ended = {"seconds": round(time.monotonic() - start, 1), "log": log.name}
    if code == 0:
        return {"status": "done", **ended}
    why = f"killed at its limit of {limit:g} s" if code is None else _describe(code)
    return {"status": "failed", "why": why, **ended, "tail": log.read_text(errors="replace")[-3000:]}


def _follow(
    process: subprocess.Popen[bytes], path: Path, deadline: float, seen: Callable[[dict[str, Any]], None]
) -> int | None:
    """Reads lines until the process ends, and returns its exit code; None at the deadline."""
    with open(path, encoding="utf-8") as file:
        rest = ""
        while True:
            code = process.poll()
            rest += file.read()
            *whole, rest = rest.split("\n")
            for line in whole:
                seen(json.loads(line))
            if code is not None or time.monotonic() > deadline:
                return code
            time.sleep(0.1)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """The process and all that it has started, also after its own end."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _describe(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
