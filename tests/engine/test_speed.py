from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sifa_zoo.config import ClipConfig
from sifa_zoo.data.formats import read_videos
from sifa_zoo.data.videos import VideoList
from sifa_zoo.engine.speed import advice, copied_short_side, loading_rate, resize_command, training_rate

CLIP = ClipConfig(num_frames=4, frame_stride=1, img_size=32)


def test_rates_are_of_this_machine(data: Path) -> None:
    assert loading_rate(read_videos(data, "train"), CLIP, seconds=0.1) > 0
    options = {"num_classes": 2, "batch_size": 2, "device": torch.device("cpu"), "seconds": 0.1}
    assert training_rate("sifa_net_nano", CLIP, **options) > 0


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
    assert words in advice(loading, training, cores=4, resize_command="RESIZE")


@pytest.mark.parametrize(("img_size", "short_side"), [(224, 256), (112, 128), (32, 64)])
def test_copies_are_a_little_larger_than_the_input(img_size: int, short_side: int) -> None:
    clip = ClipConfig(img_size=img_size)
    assert copied_short_side(clip) == short_side
    assert resize_command("my videos", clip).endswith(f"'my videos' 'my videos_{short_side}' --short-side {short_side}")
