"""The tests marked `device`, in parallel where xdist is there; failures are written as they happen."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from gpu.record import Record

ROOT = Path(__file__).resolve().parents[2]


def run(record: Record, device: str) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "gpu.tell", "-p", "no:cacheprovider", "--tb=short"]
    command += ["--continue-on-collection-errors"]
    if device == "cuda":
        command += ["--gpu", "tests/ops", "tests/models"]
        command += ["tests/training"] if importlib.util.find_spec("av") else []
    else:  # in small: the operator's tests are the only ones with a backend for each device
        command += ["tests/ops/test_inter_frame_attention.py"]
        command += ["-k", "test_equals_the_loop or test_equals_the_golden_values"]
    if importlib.util.find_spec("xdist") and device == "cuda":
        command += ["-n", str(min(6, os.cpu_count() or 1))]
    if importlib.util.find_spec("pytest_timeout"):
        command += ["--timeout", "60"]
    else:
        command += ["-o", "timeout="]
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    if device == "cuda":
        environment["FAIL_WITHOUT_CUDA"] = "1"
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    last = ""
    for line in process.stdout or ():
        print(line, end="", flush=True)
        if line.startswith("FAILED-NOW "):
            name, _, why = line.removeprefix("FAILED-NOW ").rstrip("\n").partition(" :: ")
            record.failed(name, why)
        last = line if re.search(r"\b(passed|failed|error|skipped)\b.* in ", line) else last
    code = process.wait()
    record.fact("pytest", last.strip("= \n") or f"exit code {code}")
    if code not in (0, 1):
        record.failed("pytest", f"exit code {code}, see the log")
