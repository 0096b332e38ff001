from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from tiny_videos import write_videos

from sifa_zoo.cli import main
from sifa_zoo.ops.compiler import find_compiler
from sifa_zoo.recipes import find_recipe, recipes

TINY = ["--num-frames", "4", "--frame-stride", "1", "--img-size", "32", "--workers", "0", "--device", "cpu"]
SHORT = ["--model", "sifa_net_nano", "--batch-size", "2", "--lr", "1e-3", "--warmup-epochs", "0", *TINY]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A finished run. Read it only."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert main(["finetune", str(data), "--output", str(folder), "--epochs", "3", *SHORT]) == 0
    return folder


def _error(capsys: pytest.CaptureFixture[str], argv: list[object]) -> str:
    """The one line on stderr of a command that leaves with code 2."""
    assert main([str(arg) for arg in argv]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def test_flags_become_settings(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    assert config["clip"]["img_size"] == 32
    assert (config["train"]["epochs"], config["train"]["lr"], config["train"]["hflip"]) == (3, 1e-3, True)


def test_no_hflip_and_mean(data: Path, tmp_path: Path) -> None:
    flags = ["--no-hflip", "--mean", "0.5", "0.5", "0.5", "--epochs", "1", "--model-args", "dilation=2"]
    assert main(["finetune", str(data), "--output", str(tmp_path), *flags, *SHORT]) == 0
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["train"]["hflip"] is False
    assert config["clip"]["mean"] == [0.5, 0.5, 0.5]
    assert config["model_args"] == {"dilation": 2}
    assert main(["eval", str(tmp_path), str(data), "--workers", "0", "--device", "cpu"]) == 0


def test_a_recipe_and_flags_over_it(data: Path, tmp_path: Path) -> None:
    flags = ["--recipe", "small", "--epochs", "1", "--fps", "none", "--color-jitter", "0.1", "0.1", "0.1", "0"]
    assert main(["finetune", str(data), "--output", str(tmp_path), *flags, *SHORT]) == 0
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["recipe"], config["clip"]["fps"]) == ("small", None)
    train = config["train"]
    assert train["color_jitter"] == [0.1, 0.1, 0.1, 0]
    assert (train["lr"], train["batch_size"]) == (1e-3, 2)  # of SHORT
    assert train["mixup_alpha"] == find_recipe("small").train.mixup_alpha


def test_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["lr", "0.04", "0.02", "0.02", "0.0005", "0.0005"] in rows
    assert main(["recipes", "ssv1"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["lr", "0.02", "0.0005"] in rows
    assert "one of k400, ssv1, ssv2, small, got 'ssv'" in _error(capsys, ["recipes", "ssv"])


def test_finetune_help_names_the_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["finetune", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(f"{name}: {recipe.text}" in text.replace("- ", "-") for name, recipe in recipes().items())


def test_settings_are_printed(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", str(data), "--output", str(tmp_path), "--epochs", "1", *SHORT]) == 0
    captured = capsys.readouterr()
    for name in ("num_frames", "lr", "label_smoothing", "seed", "data", "4x1, 32, 1x1 views"):
        assert name in captured.out
    assert "loss=" in captured.err
    assert "best: top-1" in captured.out


def test_eval(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tmp_path / "result.json"
    assert main(["eval", str(run), str(data), "--workers", "0", "--device", "cpu", "--output", str(result)]) == 0
    out = capsys.readouterr().out
    assert "4x1, 32, 1x1 views" in out
    assert "4 of 4 videos evaluated\n" in out
    assert "top-1 100.00 %" in out
    assert json.loads(result.read_text())["videos"] == 4


def test_eval_marks_a_shortfall(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = write_videos(tmp_path, num_train=1, num_val=1)
    (videos / "val" / "red" / "broken.mp4").write_bytes(b"no video")
    assert main(["eval", str(run), str(videos), "--workers", "0", "--device", "cpu"]) == 1
    captured = capsys.readouterr()
    assert "2 of 3 videos evaluated - INCOMPLETE" in captured.out
    assert "broken.mp4" in captured.err


def test_predict(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video, picture = data / "val" / "red" / "0.mp4", tmp_path / "out.png"
    assert main(["predict", str(video), "--model", str(run), "--topk", "1", "--picture", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(video)
    assert lines[1].endswith("%  red")
    assert len(lines) == 2
    assert Image.open(picture).width == 932


def test_predict_goes_on_after_a_bad_video(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    good = data / "val" / "blue" / "0.mp4"
    videos = [tmp_path / "empty.mp4", tmp_path / "missing.mp4", good]
    assert main(["predict", *map(str, videos), "--model", str(run)]) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0] == str(good)
    errors = captured.err.splitlines()
    assert len(errors) == 2
    assert "empty.mp4" in errors[0]
    assert "missing.mp4" in errors[1]


def test_predict_draws_one_video(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "draws one video, got 2" in _error(capsys, ["predict", "a", "b", "--model", run, "--picture", "p.png"])


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "sifa_net*"]) == 0
    assert "sifa_net_r50" in capsys.readouterr().out.split()
    assert main(["list", "nothing*"]) == 1
    assert "no model matching 'nothing*'" in capsys.readouterr().err


def test_motion_clips(tmp_path: Path) -> None:
    assert main(["motion-clips", str(tmp_path / "motion"), "--num-train", "8", "--num-val", "8", "--seed", "3"]) == 0
    assert len(list((tmp_path / "motion" / "train" / "left").iterdir())) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-frames", "6"], "num_frames must be a positive multiple of 4"),
        (["--model", "sifa_net_nan"], "sifa_net_nano"),
        (["--model", "sifa_transformer_nano", "--img-size", "33"], "33"),
        (["--epochs", "0"], "epochs must be at least 1"),
        (["--model-args", "depth=3"], "depth"),
        (["--val", "missing"], "missing"),
        (["--resume"], "no run to resume"),
        (["--device", "warp"], "device 'warp' cannot be used here"),
    ],
)
def test_finetune_refuses(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert message in _error(capsys, ["finetune", data, "--output", tmp_path / "run", *SHORT, *flags])
    assert not (tmp_path / "run").exists()


def test_finetune_refuses_missing_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere" in _error(capsys, ["finetune", tmp_path / "nowhere", "--output", tmp_path / "run", *SHORT])
    (tmp_path / "list.txt").write_text("video.mp4\n")
    assert "line 1" in _error(capsys, ["finetune", tmp_path / "list.txt", "--output", tmp_path / "run", *SHORT])


def test_a_run_is_not_overwritten(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--resume" in _error(capsys, ["finetune", data, "--output", run, *SHORT])
    assert "lr is 0.001, not 0.5" in _error(capsys, ["finetune", data, "--output", run, "--resume", "--lr", "0.5"])


def test_a_finished_run_says_so(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", str(data), "--output", str(run), "--resume", "--device", "cpu"]) == 0
    assert "is finished: all 3 epochs are done" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["finetune"], ["finetune", "data", "--output", "run", "--epochs", "many"]])
def test_argparse_leaves_with_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(argv)
    assert leaving.value.code == 2


def test_bad_model_args(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["finetune", "data", "--output", "run", "--model-args", "dilation"])
    assert "expected KEY=VALUE, got 'dilation'" in capsys.readouterr().err


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["finetune", "--help"])
    assert leaving.value.code == 0
    text = capsys.readouterr().out
    for flag in ("--num-frames", "--frame-stride", "--no-hflip", "--accumulation-steps", "--resume", "--checkpoint"):
        assert flag in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out.startswith("sifa-zoo ")


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_can_be_resumed(data: Path, tmp_path: Path, number: signal.Signals) -> None:
    output = tmp_path / "run"
    command = [sys.executable, "-m", "sifa_zoo.cli", "finetune", str(data), "--output", str(output)]
    flags = ["--epochs", "500", *SHORT, "--workers", "1"]
    process = subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (output / "state.pt").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, number)  # the workers get it too, as from a terminal or a scheduler
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    last = errors.splitlines()[-1]
    assert (
        last
        == f"interrupted: the last finished epoch is saved; continue with: sifa-zoo {' '.join(command[3:])} --resume"
    )
    assert "Traceback" not in errors


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
