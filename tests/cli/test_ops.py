"""The commands about this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from sifa_zoo.cli import main
from sifa_zoo.ops import native
from sifa_zoo.ops.compiler import find_compiler


def test_doctor_says_what_runs_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for name in ("torch ", "timm ", "backend cuda", "backend cpu", "backend torch    runs", "C++ compiler", "cache"):
        assert name in out


def test_build_ops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SIFA_ZOO_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "no_such_compiler")
    assert main(["build-ops", "--device", "cpu"]) == 1
    assert capsys.readouterr().err == (
        "error: no C++ compiler on the PATH; install g++ or clang++, or name one in CXX\n"
    )
    monkeypatch.delenv("CXX")
    if find_compiler() is None:
        pytest.skip("no C++ compiler")
    assert main(["build-ops", "--device", "cpu"]) == 0
    (built,) = capsys.readouterr().out.split()
    assert Path(built).is_file()
    before = Path(built).stat().st_mtime_ns
    assert main(["build-ops", "--device", "cpu"]) == 0
    assert Path(built).stat().st_mtime_ns == before
    assert main(["build-ops", "--device", "cpu", "--force"]) == 0
    assert Path(built).stat().st_mtime_ns > before


def test_doctor_says_loudly_what_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(native, "_LOADED", {})
    monkeypatch.setenv("SIFA_ZOO_CACHE", str(tmp_path))
    assert main(["doctor"]) == 0  # not compiled yet is no trouble
    assert "!!" not in capsys.readouterr().err
    monkeypatch.setenv("SIFA_ZOO_OPS", "nobuild")
    assert main(["doctor"]) == 1
    first, second = capsys.readouterr().err.split("!! ")[1:]
    assert first == "On cpu, the operators of SIFA run in plain PyTorch, many times slower:\n"
    assert "`sifa-zoo build-ops` compiles it" in second
    monkeypatch.setenv("SIFA_ZOO_OPS", "torch")
    assert main(["doctor"]) == 0  # as asked for
