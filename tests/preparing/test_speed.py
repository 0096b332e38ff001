from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.reading import read_videos
from sifa_zoo.datasets.videos import VideoList
from sifa_zoo.preparing.speed import (
    advice,
    copied_short_side,
    loading_rate,
    median_short_side,
    resize_command,
    training_rate,
)
from sifa_zoo.registry.create import create_model

CLIP = ClipConfig(num_frames=4, frame_stride=1, img_size=32)


def test_rates_are_clips_per_second(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = map(float, itertools.count(1))  # whoever asks for the time finds it a second later
    clock = SimpleNamespace(process_time=ticks.__next__, perf_counter=ticks.__next__)
    monkeypatch.setattr("sifa_zoo.preparing.speed.time", clock)
    assert loading_rate(read_videos(data, "train"), CLIP, seconds=3.5) == 4 / 4
    model = create_model("sifa_net_nano", num_classes=2, num_frames=4, img_size=32)
    assert training_rate(model, CLIP, batch_size=2, device=torch.device("cpu"), seconds=3.5) == 2 * 4 / 5


def test_videos_that_do_not_decode_deliver_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    assert loading_rate(VideoList([tmp_path / "bad.mp4"], [0], ["run"]), CLIP, seconds=0.01) == 0


@pytest.mark.parametrize(
    ("loading", "training", "words"),
    [
        (10, 5, "--workers 1 keeps the model busy"),
        (10, 15, "--workers 2 keeps the model busy"),
        (10, 45, "it takes 5 workers to keep it busy, and there are 4 cores; smaller copies decode faster: RESIZE"),
    ],
)
def test_advice(loading: float, training: float, words: str) -> None:
    assert words in advice(loading, training, cores=4, resize="RESIZE")


def test_small_videos_need_no_copies() -> None:
    assert "more cores would help" in advice(10, 45, cores=4, resize=None)


@pytest.mark.parametrize(("img_size", "short_side"), [(224, 256), (112, 128), (32, 32)])
def test_copies_are_about_what_training_decodes(img_size: int, short_side: int) -> None:
    assert copied_short_side(ClipConfig(img_size=img_size)) == short_side


def test_the_command_names_a_folder_beside_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my videos").mkdir()
    monkeypatch.chdir(tmp_path)
    command = resize_command("my videos", ClipConfig(), "--val", "v.csv")
    assert command == "sifa-zoo resize 'my videos' 'my videos_256' --val v.csv --short-side 256"
    monkeypatch.chdir(tmp_path / "my videos")
    assert resize_command(".", ClipConfig()) == "sifa-zoo resize . '../my videos_256' --short-side 256"


def test_short_sides(data: Path) -> None:
    assert median_short_side(read_videos(data, "train")) == 40
