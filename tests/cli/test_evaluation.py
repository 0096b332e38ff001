"""The commands `eval` and `compare`, as a person calls them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_videos import write_videos

from sifa_zoo.cli import main


def _eval(run_folder: Path, data: Path, *flags: object) -> int:
    return main(["eval", str(run_folder), str(data), "--workers", "0", "--device", "cpu", *map(str, flags)])


def test_eval(run_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tmp_path / "result.json"
    assert _eval(run_folder, data, "--output", result) == 0
    out = capsys.readouterr().out
    assert "4x1, 32, 1x1 views, softmax mean" in out
    assert "4 of 4 videos evaluated\n" in out
    assert "top-1 100.00 %, top-5 100.00 %, mean class accuracy 100.00 %" in out
    written = json.loads(result.read_text())
    assert (written["videos"], written["status"]) == (4, "complete")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_eval_into_a_folder(run_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "results" / "mine"
    assert _eval(run_folder, data, "--output", folder, "--num-clips", 2, "--precision", "bf16", "--split", "train") == 0
    assert f"report: {folder / 'report.html'}" in capsys.readouterr().out
    result = json.loads((folder / "result.json").read_text())
    assert result["protocol"] == "4x1, 32, 2x1 views, softmax mean"
    assert (result["settings"]["precision"], result["settings"]["split"], result["videos"]) == ("bf16", "train", 6)


def test_eval_marks_a_shortfall(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = write_videos(tmp_path, num_train=1, num_val=1)
    (videos / "val" / "red" / "broken.mp4").write_bytes(b"no video")
    assert _eval(run_folder, videos, "--output", tmp_path / "out") == 1
    captured = capsys.readouterr()
    assert "2 of 3 videos evaluated - INCOMPLETE" in captured.out
    assert "broken.mp4" in captured.err
    assert json.loads((tmp_path / "out" / "result.json").read_text())["status"] == "INCOMPLETE"
    assert "INCOMPLETE" in (tmp_path / "out" / "report.html").read_text()


def test_eval_finds_out_first_whether_it_can_write(
    run_folder: Path, data: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    (tmp_path / "file").write_text("")
    assert "is a file" in refusal(["eval", run_folder, data, "--output", tmp_path / "file" / "folder"])
    (tmp_path / "folder.json").mkdir()
    assert "it is a folder" in refusal(["eval", run_folder, data, "--output", tmp_path / "folder.json"])
    assert "no such run folder" in refusal(["eval", tmp_path / "typo", data, "--output", tmp_path / "new"])
    assert not (tmp_path / "new").exists()
    assert "cannot write" in refusal(["eval", run_folder, data, "--output", tmp_path / "none" / "result.json"])


def test_compare(
    run_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refusal: Callable[..., str]
) -> None:
    first, second, page = tmp_path / "one", tmp_path / "two", tmp_path / "page.html"
    assert _eval(run_folder, data, "--output", first) == 0
    assert _eval(run_folder, data, "--output", second, "--num-clips", 2) == 0
    capsys.readouterr()
    assert main(["compare", str(first), str(second), "--output", str(page)]) == 0
    out = capsys.readouterr().out
    assert "over 4 videos" in out
    assert "num_clips: 1 | 2" in out
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert _eval(run_folder, data, "--output", second, "--split", "train") == 0
    capsys.readouterr()
    assert "0 are common" in refusal(["compare", first, second])
    assert "expected a file ending in .html" in refusal(["compare", first, first, "--output", "page.txt"])
    assert "is no folder of" in refusal(["compare", first, tmp_path / "missing"])
