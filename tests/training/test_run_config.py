from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sifa_zoo.config import ClipConfig, TrainConfig
from sifa_zoo.runtime import devices
from sifa_zoo.training import run_config
from sifa_zoo.training.run_config import RunConfig


def settle(*, saved: RunConfig | None = None, device: str = "cpu", **given: Any) -> RunConfig:
    names = ("recipe", "checkpoint", "val", "clip", "train", "model_args", "pretrained", "reading")
    given = {**dict.fromkeys(names), "data": "d", "model": "sifa_net_nano", **given}
    return run_config.settle(given, saved=saved, device=device)


@pytest.mark.parametrize(
    ("given", "data"),
    [
        ("s3://bucket/a-{0..9}.tar", "s3://bucket/a-{0..9}.tar"),
        ("a-{0..9}.tar", str(Path.cwd() / "a-{0..9}.tar")),
    ],
)
def test_paths_are_absolute_and_urls_stay(given, data):
    assert settle(data=given).data == data


def test_a_warm_up_that_does_not_end_is_warned_of(capsys):
    assert settle(train={"epochs": 2, "warmup_epochs": 3}).train.warmup_epochs == 3
    assert "the warm-up of 3 epochs is longer than the run of 2" in capsys.readouterr().err


def test_uniform_sampling_needs_the_rate_of_weights_gone(monkeypatch):
    monkeypatch.setattr(run_config, "usual_clip", lambda *_: ClipConfig(fps=30))
    with pytest.raises(ValueError, match="got fps 30 with uniform; .* give --fps none"):
        settle(clip={"sampling": "uniform"})
    assert settle(clip={"sampling": "uniform", "fps": None}).clip.fps is None
    assert settle(recipe="ssv1", clip={}).clip.sampling == "uniform"  # the rate gives way
    with pytest.raises(ValueError, match="got fps 5 with uniform"):
        settle(recipe="ssv1", clip={"fps": 5.0})


def test_what_is_left_to_the_machine_is_settled_once(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(devices, "usable_cores", lambda: 12)
    begun = settle(device="cuda")
    assert (begun.train.precision, begun.train.workers) == ("bf16", 12)
    for train in (None, {"epochs": begun.train.epochs}, TrainConfig(), {"precision": "auto"}):
        resumed = settle(saved=begun, device="cpu", train=train)
        assert resumed.train.precision == "bf16"  # on another machine, too
    assert settle(saved=begun, device="cpu", train={"workers": None}).train.workers == 3
    with pytest.raises(ValueError, match="precision is bf16, not fp32"):
        settle(saved=begun, train={"precision": "fp32"})
    chosen = settle(device="cuda", train={"precision": "fp16", "workers": 0}).train
    assert (chosen.precision, chosen.workers) == ("fp16", 0)
