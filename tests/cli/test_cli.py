from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_videos import write_two_colours, write_video, write_videos

from sifa_zoo.cli import inference as predict_command
from sifa_zoo.cli import main
from sifa_zoo.ops.compiler import find_compiler
from sifa_zoo.training.recipes import find_recipe, recipes

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


def test_how_data_is_read_is_a_setting(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        videos = [f"{data}/{split}/{name}/{i}.mp4 {name}" for name in ("blue", "red") for i in range(2)]
        (tmp_path / f"{split}.txt").write_text("\n".join([*videos, f"{data}/{split}/red/nowhere.mp4 red"]))
    argv = ["finetune", str(tmp_path), "--output", str(tmp_path / "run"), "--epochs", "1", *SHORT]
    assert "nowhere.mp4" in _error(capsys, argv)
    assert main([*argv, "--allow-missing"]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["reading"]["allow_missing"], config["train_videos"], config["missing_videos"]) == (True, 4, 2)
    capsys.readouterr()
    assert "fold is 1, not 2" in _error(capsys, [*argv, "--resume", "--fold", "2"])


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
    assert "waiting for data" in captured.err
    assert "best: top-1" in captured.out


def _eval(run: Path, data: Path, *flags: object) -> int:
    return main(["eval", str(run), str(data), "--workers", "0", "--device", "cpu", *map(str, flags)])


def test_eval(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tmp_path / "result.json"
    assert _eval(run, data, "--output", result) == 0
    out = capsys.readouterr().out
    assert "4x1, 32, 1x1 views, softmax mean" in out
    assert "4 of 4 videos evaluated\n" in out
    assert "top-1 100.00 %, top-5 100.00 %, mean class accuracy 100.00 %" in out
    written = json.loads(result.read_text())
    assert (written["videos"], written["status"]) == (4, "complete")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_eval_into_a_folder(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "results" / "mine"
    assert _eval(run, data, "--output", folder, "--num-clips", 2, "--precision", "bf16", "--split", "train") == 0
    assert f"report: {folder / 'report.html'}" in capsys.readouterr().out
    result = json.loads((folder / "result.json").read_text())
    assert result["protocol"] == "4x1, 32, 2x1 views, softmax mean"
    assert (result["settings"]["precision"], result["settings"]["split"], result["videos"]) == ("bf16", "train", 6)


def test_eval_marks_a_shortfall(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = write_videos(tmp_path, num_train=1, num_val=1)
    (videos / "val" / "red" / "broken.mp4").write_bytes(b"no video")
    assert _eval(run, videos, "--output", tmp_path / "out") == 1
    captured = capsys.readouterr()
    assert "2 of 3 videos evaluated - INCOMPLETE" in captured.out
    assert "broken.mp4" in captured.err
    assert json.loads((tmp_path / "out" / "result.json").read_text())["status"] == "INCOMPLETE"
    assert "INCOMPLETE" in (tmp_path / "out" / "report.html").read_text()


def test_eval_finds_out_first_whether_it_can_write(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert "is a file" in _error(capsys, ["eval", run, data, "--output", tmp_path / "file" / "folder"])
    (tmp_path / "folder.json").mkdir()
    assert "it is a folder" in _error(capsys, ["eval", run, data, "--output", tmp_path / "folder.json"])
    assert "no such run folder" in _error(capsys, ["eval", tmp_path / "typo", data, "--output", tmp_path / "new"])
    assert not (tmp_path / "new").exists()
    assert "cannot write" in _error(capsys, ["eval", run, data, "--output", tmp_path / "none" / "result.json"])


def test_compare(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, page = tmp_path / "one", tmp_path / "two", tmp_path / "page.html"
    assert _eval(run, data, "--output", first) == 0
    assert _eval(run, data, "--output", second, "--num-clips", 2) == 0
    capsys.readouterr()
    assert main(["compare", str(first), str(second), "--output", str(page)]) == 0
    out = capsys.readouterr().out
    assert "over 4 videos" in out
    assert "num_clips: 1 | 2" in out
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert _eval(run, data, "--output", second, "--split", "train") == 0
    capsys.readouterr()
    assert "0 are common" in _error(capsys, ["compare", first, second])
    assert "expected a file ending in .html" in _error(capsys, ["compare", first, first, "--output", "page.txt"])
    assert "is no folder of" in _error(capsys, ["compare", first, tmp_path / "missing"])


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
    assert len(errors) == 3
    assert "empty.mp4" in errors[0]
    assert "missing.mp4" in errors[1]
    assert errors[2] == "2 of 3 videos could not be decoded"


def test_predict_draws_one_video(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "draws one video, got 2" in _error(capsys, ["predict", "a", "b", "--model", run, "--picture", "p.png"])
    assert "got 4" in _error(capsys, ["predict", data / "val", "--model", run, "--picture", "p.png"])


def test_an_interrupted_prediction_keeps_what_it_has(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    show, shown = predict_command._print_prediction, []

    def interrupt(prediction: object) -> None:
        if len(shown) == 2:
            raise KeyboardInterrupt
        shown.append(prediction)
        show(prediction)

    monkeypatch.setattr(predict_command, "_print_prediction", interrupt)
    argv = ["predict", str(data / "val"), "--model", str(run), "--csv", str(tmp_path / "out.csv")]
    assert main([*argv, "--workers", "0"]) == 130
    with open(tmp_path / "out.csv", newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)][:2] == [prediction.path for prediction in shown]


def test_predict_writes_tables(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, lines = tmp_path / "out.csv", tmp_path / "out.json"
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    videos = [str(data / "val"), str(tmp_path / "*.mp4")]
    assert main(["predict", *videos, "--model", str(run), "--csv", str(table), "--json", str(lines)]) == 1
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["top1"] for row in rows] == ["blue", "blue", "red", "red", ""]
    assert rows[4]["error"].endswith("not a video that FFmpeg can open")
    found = json.loads(lines.read_text())
    assert [entry["path"] for entry in found] == [row["path"] for row in rows]
    assert found[0]["scores"][0] == ["blue", pytest.approx(float(rows[0]["score1"]), abs=1e-6)]
    assert "1 of 5 videos could not be decoded" in capsys.readouterr().err


def test_predict_stream(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_two_colours(tmp_path / "long.mp4", num_frames=(30, 20))
    table, lines = tmp_path / "out.csv", tmp_path / "out.jsonl"
    command = ["predict", "--stream", str(video), "--model", str(run), "--hop", "0.2s"]
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


def test_predict_stream_from_standard_input(run: Path, tmp_path: Path) -> None:
    """MPEG transport streams need no seeking."""
    video = write_video(tmp_path / "long.ts", color=(200, 30, 30), num_frames=30)
    command = [sys.executable, "-m", "sifa_zoo.cli", "predict", "--stream", "-", "--model", str(run)]
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
def test_predict_refuses(run: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str) -> None:
    assert message in _error(capsys, ["predict", *flags, "--model", run])


@pytest.mark.parametrize(
    ("source", "message"),
    [("missing.mp4", "no such file"), ("/dev/video_of_nobody", "cannot be opened as a video")],
)
def test_a_stream_that_cannot_be_read_is_no_mistake_in_the_call(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, message: str
) -> None:
    before = tmp_path / "before.csv"
    before.write_text("precious")
    assert main(["predict", "--stream", source, "--model", str(run), "--csv", str(before)]) == 1
    assert f"error: {source}: {message}" in capsys.readouterr().err
    assert before.read_text() == "precious"


def test_features(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video, output = data / "val" / "red" / "0.mp4", tmp_path / "red.npy"
    assert main(["features", str(video), "--model", str(run), "--output", str(output), "--hop", "2"]) == 0
    assert np.load(output).shape[0] == 5  # 1 + (12 - 4) / 2
    assert capsys.readouterr().out.startswith(f"{output}: 5 rows of ")
    assert json.loads((tmp_path / "red.json").read_text())["weights"] == str(run)


def test_features_of_several_videos(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    videos, command = [data / "val" / "red", tmp_path / "bad.mp4"], ["--model", run, "--output"]
    assert main([str(arg) for arg in ("features", *videos, *command, tmp_path / "out")]) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.safetensors", "1.safetensors"]
    assert "bad.mp4" in capsys.readouterr().err
    assert "name a folder" in _error(capsys, ["features", *videos, *command, tmp_path / "out.npy"])
    assert "go to a .npy or .safetensors file" in _error(capsys, ["features", videos[1], *command, tmp_path / "x"])
    folders = [data / "val" / "red", data / "val" / "blue"]
    assert "would both be written to" in _error(capsys, ["features", *folders, *command, tmp_path / "x"])


@pytest.mark.parametrize("source", ["val", "val/*/*.mp4"])
def test_features_of_class_folders_keep_these(run: Path, data: Path, tmp_path: Path, source: str) -> None:
    assert main(["features", str(data / source), "--model", str(run), "--output", str(tmp_path / "out")]) == 0
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in tmp_path.rglob("*.safetensors"))
    assert written == [f"{name}/{i}.safetensors" for name in ("blue", "red") for i in (0, 1)]


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
        (["--model-args", "drop_rate=0.3"], "model_args must not name drop_rate"),
        (["--val", "missing"], "missing"),
        (["--checkpoint", "sifa_net_nano.motion"], "give weights by name as the model"),
        (["--resume"], "no run to resume"),
        (["--device", "warp"], "device 'warp' cannot be used here"),
    ],
)
def test_finetune_refuses(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert message in _error(capsys, ["finetune", data, "--output", tmp_path / "run", *SHORT, *flags])
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made_is_found_out_first(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is a file, not a folder" in _error(capsys, ["finetune", data, "--output", f"{__file__}/run", *SHORT])


def test_the_same_command_resumes(data: Path, tmp_path: Path) -> None:
    argv = ["finetune", str(data), "--output", str(tmp_path / "run"), "--epochs", "1", "--resume", "auto", *SHORT]
    argv += ["--model-args", "kernel_size=(3, 3, 3, 3)"]
    assert main(argv) == 0
    assert main(argv) == 0


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
    assert process.returncode == 128 + number
    last = errors.splitlines()[-1]
    assert last == f"interrupted: what was trained is saved; continue with: sifa-zoo {' '.join(command[3:])} --resume"
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
