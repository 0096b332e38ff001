"""The commands `predict` and `features`, as a person calls them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_videos import write_two_colours, write_video

from sifa_zoo.cli import inference as predict_command
from sifa_zoo.cli import main


def test_predict(run_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video, picture = data / "val" / "red" / "0.mp4", tmp_path / "out.png"
    assert main(["predict", str(video), "--model", str(run_folder), "--topk", "1", "--picture", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(video)
    assert lines[1].endswith("%  red")
    assert len(lines) == 2
    assert Image.open(picture).width == 932


def test_predict_goes_on_after_a_bad_video(
    run_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    good = data / "val" / "blue" / "0.mp4"
    videos = [tmp_path / "empty.mp4", tmp_path / "missing.mp4", good]
    assert main(["predict", *map(str, videos), "--model", str(run_folder)]) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0] == str(good)
    errors = captured.err.splitlines()
    assert len(errors) == 3
    assert "empty.mp4" in errors[0]
    assert "missing.mp4" in errors[1]
    assert errors[2] == "2 of 3 videos could not be decoded"


def test_predict_draws_one_video(run_folder: Path, data: Path, refusal: Callable[..., str]) -> None:
    assert "draws one video, got 2" in refusal(["predict", "a", "b", "--model", run_folder, "--picture", "p.png"])
    assert "got 4" in refusal(["predict", data / "val", "--model", run_folder, "--picture", "p.png"])


def test_an_interrupted_prediction_keeps_what_it_has(
    run_folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    show, shown = predict_command._print_prediction, []

    def interrupt(prediction: object) -> None:
        if len(shown) == 2:
            raise KeyboardInterrupt
        shown.append(prediction)
        show(prediction)

    monkeypatch.setattr(predict_command, "_print_prediction", interrupt)
    argv = ["predict", str(data / "val"), "--model", str(run_folder), "--csv", str(tmp_path / "out.csv")]
    assert main([*argv, "--workers", "0"]) == 130
    with open(tmp_path / "out.csv", newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)][:2] == [prediction.path for prediction in shown]


def test_predict_writes_tables(
    run_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, lines = tmp_path / "out.csv", tmp_path / "out.json"
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    videos = [str(data / "val"), str(tmp_path / "*.mp4")]
    assert main(["predict", *videos, "--model", str(run_folder), "--csv", str(table), "--json", str(lines)]) == 1
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["top1"] for row in rows] == ["blue", "blue", "red", "red", ""]
    assert rows[4]["error"].endswith("not a video that FFmpeg can open")
    found = json.loads(lines.read_text())
    assert [entry["path"] for entry in found] == [row["path"] for row in rows]
    assert found[0]["scores"][0] == ["blue", pytest.approx(float(rows[0]["score1"]), abs=1e-6)]
    assert "1 of 5 videos could not be decoded" in capsys.readouterr().err


def test_predict_stream(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_two_colours(tmp_path / "long.mp4", num_frames=(30, 20))
    table, lines = tmp_path / "out.csv", tmp_path / "out.jsonl"
    command = ["predict", "--stream", str(video), "--model", str(run_folder), "--hop", "0.2s"]
    assert main([*command, "--csv", str(table), "--json", str(lines)]) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["red", "blue"]
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["red", "blue"]
    assert (rows[0]["start"], rows[1]["end"]) == ("0.000", "5.000")
    assert rows[0]["end"] == rows[1]["start"]
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [entry["label"] for entry in found if entry["type"] == "segment"] == ["red", "blue"]
    windows = [entry for entry in found if entry["type"] == "window"]
    assert len(windows) == 24  # 1 + (50 - 4) / 2
    assert windows[1]["start"] == pytest.approx(0.2)


def test_predict_stream_from_standard_input(run_folder: Path, tmp_path: Path) -> None:
    """MPEG transport streams need no seeking."""
    video = write_video(tmp_path / "long.ts", color=(200, 30, 30), num_frames=30)
    command = [sys.executable, "-m", "sifa_zoo.cli", "predict", "--stream", "-", "--model", str(run_folder)]
    with open(video, "rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "red"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "name videos, folders or patterns, or a --stream"),
        (["a.mp4", "--stream", "b.mp4"], "--stream takes one source"),
        (["--stream", "b.mp4", "--picture", "p.png"], "--stream takes one source"),
        (["--stream", "b.mp4", "--num-clips", "1", "--batch-size", "2"], "--num-clips 1 --batch-size 2: for videos"),
        (["--stream", "b.mp4", "--num-crops", "3", "--workers", "0"], "--num-crops 3 --workers 0: for videos"),
        (["a.mp4", "--window", "2s", "--hop", "1s"], "--window 2s --hop 1s: for a --stream only"),
        (["--csv", "nowhere/out.csv", "a.mp4"], "cannot write nowhere/out.csv"),
        (["--csv", "a.mp4", "a.mp4"], "expected a file ending in .csv, got 'a.mp4'"),
        (["--json", "", "a.mp4"], "expected a file ending in .json, .jsonl, got ''"),
        ([""], "the name of a video is empty"),
        (["*.nothing"], "no file matches"),
    ],
)
def test_predict_refuses(run_folder: Path, flags: list[str], message: str, refusal: Callable[..., str]) -> None:
    assert message in refusal(["predict", *flags, "--model", run_folder])


@pytest.mark.parametrize(
    ("source", "message"),
    [("missing.mp4", "no such file"), ("/dev/video_of_nobody", "cannot be opened as a video")],
)
def test_a_stream_that_cannot_be_read_is_no_mistake_in_the_call(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, message: str
) -> None:
    before = tmp_path / "before.csv"
    before.write_text("precious")
    assert main(["predict", "--stream", source, "--model", str(run_folder), "--csv", str(before)]) == 1
    assert f"error: {source}: {message}" in capsys.readouterr().err
    assert before.read_text() == "precious"


def test_features(run_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video, output = data / "val" / "red" / "0.mp4", tmp_path / "red.npy"
    assert main(["features", str(video), "--model", str(run_folder), "--output", str(output), "--hop", "2"]) == 0
    assert np.load(output).shape[0] == 5  # 1 + (12 - 4) / 2
    assert capsys.readouterr().out.startswith(f"{output}: 5 rows of ")
    assert json.loads((tmp_path / "red.json").read_text())["weights"] == str(run_folder)


def test_features_of_several_videos(
    run_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refusal: Callable[..., str]
) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    videos, command = [data / "val" / "red", tmp_path / "bad.mp4"], ["--model", run_folder, "--output"]
    assert main([str(arg) for arg in ("features", *videos, *command, tmp_path / "out")]) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.safetensors", "1.safetensors"]
    assert "bad.mp4" in capsys.readouterr().err
    assert "name a folder" in refusal(["features", *videos, *command, tmp_path / "out.npy"])
    assert "go to a .npy or .safetensors file" in refusal(["features", videos[1], *command, tmp_path / "x"])
    folders = [data / "val" / "red", data / "val" / "blue"]
    assert "would both be written to" in refusal(["features", *folders, *command, tmp_path / "x"])


@pytest.mark.parametrize("source", ["val", "val/*/*.mp4"])
def test_features_of_class_folders_keep_these(run_folder: Path, data: Path, tmp_path: Path, source: str) -> None:
    assert main(["features", str(data / source), "--model", str(run_folder), "--output", str(tmp_path / "out")]) == 0
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in tmp_path.rglob("*.safetensors"))
    assert written == [f"{name}/{i}.safetensors" for name in ("blue", "red") for i in (0, 1)]
