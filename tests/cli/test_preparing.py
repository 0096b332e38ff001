"""The commands about data, as a person calls them."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from tiny_videos import write_video, write_videos

from sifa_zoo.cli import main
from sifa_zoo.video.load import video_info

CLIP = ["--num-frames", "4", "--frame-stride", "1", "--img-size", "32"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_videos(tmp_path / "videos")


def test_a_sound_data_set_passes(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(data), *CLIP]) == 0
    captured = capsys.readouterr()
    assert "train: 6 videos, 2 classes, class folders" in captured.out
    assert "val: 4 videos" in captured.out
    assert "nothing here stops training" in captured.out
    assert "clips/s" in captured.out
    assert "check train: 100%" in captured.err


def test_bad_files_are_named_counted_and_written_down(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "train/red/broken.mp4").write_bytes(b"no video")
    shutil.copy(data / "train/red/0.mp4", data / "val/red/copy.mp4")
    assert main(["check", str(data), "--csv", str(tmp_path / "findings.csv"), *CLIP]) == 1
    out = capsys.readouterr().out
    assert "broken.mp4: undecodable: not a video that FFmpeg can open" in out
    assert "copy.mp4: duplicate: the same bytes as" in out
    assert "training would stop" in out
    rows = list(csv.DictReader((tmp_path / "findings.csv").open()))
    assert [(row["kind"], row["stops_training"]) for row in rows] == [("undecodable", "yes"), ("duplicate", "no")]


def test_missing_videos_stop_training_unless_allowed(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        lines = [f"{split}/{name}/0.mp4 {name}" for name in ("blue", "red")]
        (data / f"{split}.txt").write_text("\n".join([*lines, "gone.mp4 red"]))
    call = ["check", str(data), "--format", "list", *CLIP]
    assert main(call) == 1
    assert "gone.mp4: missing: no such file" in capsys.readouterr().out
    assert main([*call, "--allow-missing"]) == 0


def test_shards_are_checked(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    webdataset = pytest.importorskip("webdataset")
    for split in ("train", "val"):
        (tmp_path / "shards" / split).mkdir(parents=True)
        with webdataset.TarWriter(str(tmp_path / "shards" / split / "0.tar")) as writer:
            for number, path in enumerate(sorted(data.glob(f"{split}/*/*.mp4"))):
                writer.write({"__key__": f"{number}", "mp4": path.read_bytes(), "txt": path.parent.name})
            if split == "val":
                writer.write({"__key__": "9", "mp4": b"no video"})
    (tmp_path / "shards" / "classes.txt").write_text("blue\nred\n")
    assert main(["check", str(tmp_path / "shards" / "train"), *CLIP]) == 0
    captured = capsys.readouterr()
    assert "videos: 1 shards, 2 classes, WebDataset shards" in captured.out
    assert "clips/s" in captured.out
    assert "check videos: 100%" in captured.err
    model = ["--model", "sifa_net_nano", "--device", "cpu", "--batch-size", "2"]
    assert main(["check", str(tmp_path / "shards"), *CLIP, *model]) == 1
    out = capsys.readouterr().out
    assert "0.tar, sample 9: undecodable: not a video that FFmpeg can open; unlabelled: no label" in out
    assert "training: sifa_net_nano takes" in out
    assert main(["check", str(data / "train"), "--val", str(tmp_path / "shards" / "val" / "0.tar"), *CLIP]) == 1
    assert "val: 1 shards" in capsys.readouterr().out


@pytest.mark.parametrize(("rate", "answer"), [(1e6, "keeps the model busy"), (1e-3, "the model would wait")])
def test_a_model_says_what_it_consumes(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rate: float, answer: str
) -> None:
    monkeypatch.setattr("sifa_zoo.preparing.speed.loading_rate", lambda *_: rate)
    assert main(["check", str(data), "--model", "sifa_net_nano", "--batch-size", "2", "--device", "cpu", *CLIP]) == 0
    out = capsys.readouterr().out
    assert "training: sifa_net_nano takes" in out
    assert answer in out


def test_unusable_data_and_flags_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "nowhere")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    assert main(["check", str(tmp_path), "--csv", "findings.txt"]) == 2
    assert "expected a file ending in .csv" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "-1", "two"])
def test_workers_are_at_least_one(data: Path, capsys: pytest.CaptureFixture[str], value: str) -> None:
    with pytest.raises(SystemExit):
        main(["check", str(data), f"--workers={value}"])
    assert "expected a whole number of at least 1" in capsys.readouterr().err


def test_videos_without_splits_are_copied_and_checked_again(data: Path, tmp_path: Path, capsys) -> None:
    assert main(["check", str(data / "train"), *CLIP]) == 0
    assert "no validation videos: set some aside" in capsys.readouterr().out
    assert main(["resize", str(data / "train"), str(tmp_path / "small"), "--short-side", "32"]) == 0
    named = capsys.readouterr().out.split("as data, name ")[1].strip()
    assert main(["check", named, *CLIP]) == 0
    assert "videos: 6 videos, 2 classes" in capsys.readouterr().out


def test_pictures_without_a_rate_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("blue", "red"):
        for number in range(8):
            path = tmp_path / f"pictures/{name}/0/{number:05}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (48, 40), name).save(path)
    assert main(["check", str(tmp_path / "pictures"), *CLIP]) == 0
    assert main(["check", str(tmp_path / "pictures"), *CLIP, "--fps", "10"]) == 1
    assert "no times: a folder of pictures has no rate, which --fps needs" in capsys.readouterr().out


def test_an_interrupted_check_tells_what_it_found(tmp_path: Path) -> None:
    for name in ("blue", "red"):
        write_video(tmp_path / f"videos/{name}/0.mp4", color=(200, 30, 30), num_frames=200)
        for i in range(1, 400):
            os.link(tmp_path / f"videos/{name}/0.mp4", tmp_path / f"videos/{name}/{i}.mp4")
    command = [sys.executable, "-m", "sifa_zoo.cli", "check", "videos", "--csv", "findings.csv", "--num-frames", "400"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    assert process.stderr is not None
    seen = ""
    while "/800" not in seen or " 0/800" in seen[-60:]:
        seen += process.stderr.read(20)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "not all videos were checked" in out
    rows = list(csv.DictReader((tmp_path / "findings.csv").open()))
    assert 0 < len(rows) < 800
    assert {row["kind"] for row in rows} == {"short"}


def test_split_and_resize_make_data(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists, small = tmp_path / "lists", tmp_path / "small"
    assert main(["split", str(data / "train"), str(lists), "--val-share", "0.3"]) == 0
    assert f"{lists / 'val.csv'}: 2 videos of 2 classes" in capsys.readouterr().out
    assert main(["split", str(data / "train"), str(lists)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["split", str(data / "train"), str(data / "train/lists")]) == 2
    assert "lies within the class folders" in capsys.readouterr().err
    assert main(["resize", str(lists), str(small), "--short-side", "32"]) == 0
    assert f"6 of 6 videos are in {small}" in capsys.readouterr().out
    assert {video_info(path).height for path in small.rglob("*.mp4")} == {32}
    assert main(["check", str(small), *CLIP]) == 0


def test_resize_names_bad_videos(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "train/red/broken.mp4").write_bytes(b"no video")
    assert main(["resize", str(data), str(tmp_path / "small"), "--short-side", "32"]) == 1
    captured = capsys.readouterr()
    assert "broken.mp4: not a video" in captured.err
    assert "10 of 11 videos are in" in captured.out


def test_motion_clips(tmp_path: Path) -> None:
    assert main(["motion-clips", str(tmp_path / "motion"), "--num-train", "8", "--num-val", "8", "--seed", "3"]) == 0
    assert len(list((tmp_path / "motion" / "train" / "left").iterdir())) == 1
