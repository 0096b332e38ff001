from __future__ import annotations

import pytest

from sifa_zoo.config import ClipConfig
from sifa_zoo.training import run_config
from sifa_zoo.training.run_config import settle


def test_a_warm_up_that_does_not_end_is_warned_of(capsys):
    given = dict.fromkeys(("recipe", "checkpoint", "val", "clip", "model_args", "pretrained", "reading"))
    given |= {"data": "d", "model": "sifa_net_nano", "train": {"epochs": 2, "warmup_epochs": 3}}
    assert settle(given, saved=None).train.warmup_epochs == 3
    assert "the warm-up of 3 epochs is longer than the run of 2" in capsys.readouterr().err


def test_uniform_sampling_needs_the_rate_of_weights_gone(monkeypatch):
    monkeypatch.setattr(run_config, "usual_clip", lambda *_: ClipConfig(fps=30))
    given = dict.fromkeys(("recipe", "checkpoint", "val", "train", "model_args", "pretrained", "reading"))
    given |= {"data": "d", "model": "sifa_net_nano"}
    with pytest.raises(ValueError, match="got fps 30 with uniform; .* give --fps none"):
        settle({**given, "clip": {"sampling": "uniform"}}, saved=None)
    assert settle({**given, "clip": {"sampling": "uniform", "fps": None}}, saved=None).clip.fps is None
    recipe = {**given, "recipe": "ssv1"}
    assert settle({**recipe, "clip": {}}, saved=None).clip.sampling == "uniform"  # the rate gives way
    with pytest.raises(ValueError, match="got fps 5 with uniform"):
        settle({**recipe, "clip": {"fps": 5.0}}, saved=None)
