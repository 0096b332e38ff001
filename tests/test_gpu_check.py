"""The check for a lent GPU, rehearsed on the CPU: every stage, and stages that crash or hang."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
STAGES = """
import sys
sys.path.insert(0, {benchmarks!r})
import gpu_check
from gpu.stages import Stage
gpu_check.STAGES = [Stage(name, "odd_stages." + name, 30, 30) for name in {names!r}]
gpu_check.NAMES = {names!r}
sys.argv = ["gpu_check.py", "--device", "cpu", "--output", {output!r}, "--limit", "hangs={hangs}"]
sys.exit(gpu_check.main())
"""
ODD = {
    "works": "record.row('figures', number=1)",
    "crashes": "record.row('figures', number=2); os.kill(os.getpid(), signal.SIGSEGV)",
    "hangs": "record.row('figures', number=3); child = subprocess.Popen(['sleep', '61.25']); time.sleep(61)",
    "raises": "record.row('figures', number=4); raise RuntimeError('a reason')",
    "has_failures": "record.expect('a check', False, seen=5)",
    "leaves_out": "raise LeftOut('no such thing')",
}


@pytest.fixture
def start(tmp_path):
    """Starts the check with stages of this file, of which `hangs` may take so many seconds; process and folder."""

    def start(*names, hangs):
        folder = tmp_path / "odd_stages"
        folder.mkdir()
        for name in names:
            imports = "import os, signal, subprocess, time\nfrom gpu.record import LeftOut\n"
            (folder / f"{name}.py").write_text(f"{imports}def run(record, device):\n    {ODD[name]}\n")
        output = tmp_path / "output"
        script = STAGES.format(benchmarks=str(BENCHMARKS), names=names, output=str(output), hangs=hangs)
        environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE), output

    return start


def read(output):
    stages = json.loads((output / "check.json").read_text())["stages"]
    rows = {name: [line for line in stage["lines"] if line["kind"] == "row"] for name, stage in stages.items()}
    return stages, rows


def is_running(*command):
    wanted = "\0".join(command).encode() + b"\0"
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it may have ended
            if path.read_bytes() == wanted:
                return True
    return False


def test_a_stage_that_crashes_or_hangs_costs_itself(start):
    process, output = start("crashes", "hangs", "raises", "has_failures", "leaves_out", "works", hangs=10)
    said = process.communicate(timeout=120)[0].decode()
    assert process.returncode == 1
    stages, rows = read(output)
    statuses = {name: stage["status"] for name, stage in stages.items()}
    failed = dict.fromkeys(("crashes", "hangs", "raises", "has_failures"), "failed")
    assert statuses == failed | {"leaves_out": "done", "works": "done"}
    assert stages["crashes"]["why"] == "ended by SIGSEGV"
    assert stages["hangs"]["why"] == "killed at its limit of 10 s"
    assert "RuntimeError: a reason" in stages["raises"]["tail"]
    assert [len(rows[name]) for name in ("crashes", "hangs", "raises", "works")] == [1, 1, 1, 1]
    assert not is_running("sleep", "61.25")  # what a stage has started ends with it
    page = (output / "check.md").read_text()
    assert "left out: stage: no such thing" in page
    assert "FAILED: a check: seen 5" in said


def test_a_check_that_is_stopped_keeps_what_it_has(start):
    process, output = start("works", "hangs", hangs=100)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not ((output / "check.json").exists() and read(output)[1].get("hangs")):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    stages, rows = read(output)
    assert stages["hangs"]["status"] == "running"
    assert len(rows["works"]) == len(rows["hangs"]) == 1
    assert not is_running("sleep", "61.25")


@pytest.mark.timeout(300)
def test_every_stage_in_small(tmp_path):
    """Each stage gives figures or a reason, and none fails."""
    command = [sys.executable, BENCHMARKS / "gpu_check.py", "--device", "cpu", "--output", tmp_path]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SIFA_ZOO_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout
    stages, rows = read(tmp_path)
    expected = ["build", "tests", "operator", "training", "resume", "distributed", "models", "finetune", "counters"]
    assert list(stages) == expected
    assert all(rows[name] or stage.get("why") for name, stage in stages.items())
    assert {name for name, stage in stages.items() if stage["status"] == "left out"} == {"counters"}
    page = (tmp_path / "check.md").read_text()
    assert all(f"## {name}: " in page for name in expected)


def test_wrong_flags_are_named():
    for flag, match in (("--stages=nothing", "no such stage: nothing"), ("--limit=tests=soon", "invalid limit value")):
        command = [sys.executable, BENCHMARKS / "gpu_check.py", flag]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert match in done.stderr


def test_the_default_limits_fit_into_eight_minutes():
    script = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); from gpu.stages import STAGES; "
    script += "print(sum(stage.seconds for stage in STAGES))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 480
