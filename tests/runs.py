"""Finished runs of the nano model on tiny videos, as fixtures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_videos import write_videos

from sifa_zoo.config import ClipConfig, TrainConfig

CLIP = ClipConfig(num_frames=4, frame_stride=1, img_size=32)
TRAIN = {"epochs": 2, "batch_size": 2, "lr": 1e-3, "warmup_epochs": 0, "workers": 0}


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training and four validation videos in two classes. Read them only."""
    return write_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="session")
def train(data: Path) -> Callable[..., dict[str, Any]]:
    """Fine-tune the nano model on `data`: `train(output, epochs=..., other settings of TrainConfig)`."""

    def run(
        output: Path, *, videos: Path = data, call: dict[str, Any] | None = None, **settings: Any
    ) -> dict[str, Any]:
        from sifa_zoo.training.finetune import finetune

        settings = {**TRAIN, **settings}
        options = {"model": "sifa_net_nano", "clip": CLIP, "train": TrainConfig(**settings), "device": "cpu"}
        return finetune(videos, output=output, **{**options, **(call or {})})

    return run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, train: Callable[..., dict[str, Any]]) -> Path:
    """A finished run. Read it only."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    train(folder, epochs=3)
    return folder


@pytest.fixture(scope="session")
def same_run() -> Callable[[Path, Path], None]:
    """Assert that two run folders hold the same log and weights, byte for byte."""

    def compare(one: Path, other: Path) -> None:
        for name in ("log.csv", "last.safetensors", "best.safetensors"):
            assert (one / name).read_bytes() == (other / name).read_bytes(), name

    return compare
