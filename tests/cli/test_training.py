"""The commands `finetune` and `recipes`, as a person calls them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sifa_zoo.cli import main
from sifa_zoo.training.recipes import find_recipe

TINY = ["--num-frames", "4", "--frame-stride", "1", "--img-size", "32", "--workers", "0", "--device", "cpu"]
SHORT = ["--model", "sifa_net_nano", "--batch-size", "2", "--lr", "1e-3", "--warmup-epochs", "0", *TINY]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A finished run. Read it only."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert main(["finetune", str(data), "--output", str(folder), "--epochs", "3", *SHORT]) == 0
    return folder


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


def test_how_data_is_read_is_a_setting(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refusal: Callable[..., str]
) -> None:
    for split in ("train", "val"):
        videos = [f"{data}/{split}/{name}/{i}.mp4 {name}" for name in ("blue", "red") for i in range(2)]
        (tmp_path / f"{split}.txt").write_text("\n".join([*videos, f"{data}/{split}/red/nowhere.mp4 red"]))
    argv = ["finetune", str(tmp_path), "--output", str(tmp_path / "run"), "--epochs", "1", *SHORT]
    assert "nowhere.mp4" in refusal(argv)
    assert main([*argv, "--allow-missing"]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["reading"]["allow_missing"], config["train_videos"], config["missing_videos"]) == (True, 4, 2)
    capsys.readouterr()
    assert "fold is 1, not 2" in refusal([*argv, "--resume", "--fold", "2"])


def test_settings_are_printed(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", str(data), "--output", str(tmp_path), "--epochs", "1", *SHORT]) == 0
    captured = capsys.readouterr()
    for name in ("num_frames", "lr", "label_smoothing", "seed", "data", "4x1, 32, 1x1 views"):
        assert name in captured.out
    assert "waiting for data" in captured.err
    assert "best: top-1" in captured.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-frames", "6"], "num_frames must be a positive multiple of 4"),
        (["--model", "sifa_net_nan"], "sifa_net_nano"),
        (["--model", "sifa_transformer_nano", "--img-size", "33"], "33"),
        (["--epochs", "0"], "epochs must be at least 1"),
        (["--model-args", "depth=3"], "depth"),
        (["--model-args", "drop_rate=0.3"], "model_args must not name drop_rate"),
        (["--val", "missing"], "missing"),
        (["--checkpoint", "sifa_net_nano.motion"], "give weights by name as the model"),
        (["--resume"], "no run to resume"),
        (["--device", "warp"], "device 'warp' cannot be used here"),
    ],
)
def test_finetune_refuses(
    data: Path, tmp_path: Path, flags: list[str], message: str, refusal: Callable[..., str]
) -> None:
    assert message in refusal(["finetune", data, "--output", tmp_path / "run", *SHORT, *flags])
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made_is_found_out_first(data: Path, refusal: Callable[..., str]) -> None:
    assert "is a file, not a folder" in refusal(["finetune", data, "--output", f"{__file__}/run", *SHORT])


def test_the_same_command_resumes(data: Path, tmp_path: Path) -> None:
    argv = ["finetune", str(data), "--output", str(tmp_path / "run"), "--epochs", "1", "--resume", "auto", *SHORT]
    argv += ["--model-args", "kernel_size=(3, 3, 3, 3)"]
    assert main(argv) == 0
    assert main(argv) == 0


def test_finetune_refuses_missing_data(tmp_path: Path, refusal: Callable[..., str]) -> None:
    assert "nowhere" in refusal(["finetune", tmp_path / "nowhere", "--output", tmp_path / "run", *SHORT])
    (tmp_path / "list.txt").write_text("video.mp4\n")
    assert "line 1" in refusal(["finetune", tmp_path / "list.txt", "--output", tmp_path / "run", *SHORT])


def test_a_run_is_not_overwritten(run: Path, data: Path, refusal: Callable[..., str]) -> None:
    assert "--resume" in refusal(["finetune", data, "--output", run, *SHORT])
    assert "lr is 0.001, not 0.5" in refusal(["finetune", data, "--output", run, "--resume", "--lr", "0.5"])


def test_a_finished_run_says_so(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", str(data), "--output", str(run), "--resume", "--device", "cpu"]) == 0
    assert "is finished: all 3 epochs are done" in capsys.readouterr().out


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
    assert process.returncode == 128 + number
    last = errors.splitlines()[-1]
    assert last == f"interrupted: what was trained is saved; continue with: sifa-zoo {' '.join(command[3:])} --resume"
    assert "Traceback" not in errors


def test_recipes(capsys: pytest.CaptureFixture[str], refusal: Callable[..., str]) -> None:
    assert main(["recipes"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["lr", "0.04", "0.02", "0.02", "0.0005", "0.0005"] in rows
    assert main(["recipes", "ssv1"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["lr", "0.02", "0.0005"] in rows
    assert "one of k400, ssv1, ssv2, small, got 'ssv'" in refusal(["recipes", "ssv"])
