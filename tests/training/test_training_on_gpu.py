"""A run, its evaluation and its predictions on a GPU, and what it leaves for a CPU."""

import copy

import pytest
import torch
from interrupts import interrupt_epoch
from nano_models import build, clip
from runs import CLIP
from torch.nn import functional as F
from torch.testing import assert_close

from sifa_zoo.config import TrainConfig
from sifa_zoo.evaluation.evaluate import evaluate_run
from sifa_zoo.inference.predict import predict
from sifa_zoo.runtime.checkpoint import load_run
from sifa_zoo.training.learner import Learner


@pytest.mark.parametrize("settings", [{}, {"precision": "bf16", "ema_decay": 0.9}, {"precision": "fp16"}], ids=str)
def test_a_run_from_start_to_prediction(gpu, tmp_path, data, train, settings):
    best = train(tmp_path / "run", call={"device": gpu}, **settings)
    assert best["val_videos"] == best["val_expected"] == 4
    found = evaluate_run(tmp_path / "run", data, workers=0, device=gpu)
    on_cpu = evaluate_run(tmp_path / "run", data, workers=0, precision="fp32", device="cpu")
    assert found["loss"] == pytest.approx(on_cpu["loss"], rel=0.05, abs=0.02)
    model = load_run(tmp_path / "run", "cpu")
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    scores = predict(model, data / "val" / "red" / "0.mp4", class_names=["blue", "red"], clip=CLIP, device=gpu)
    assert sum(score for _, score in scores) == pytest.approx(1, abs=1e-3)


def test_a_run_is_resumed(gpu, tmp_path, train, monkeypatch):
    interrupt_epoch(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", call={"device": gpu})
    monkeypatch.undo()
    best = train(tmp_path / "run", call={"device": gpu, "resume": True})
    assert best["train_loss"] > 0
    assert (tmp_path / "run" / "last.safetensors").is_file()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_an_update_moves_weights_and_their_average(gpu, precision):
    settings = {"lr": 1e-2, "warmup_epochs": 0, "epochs": 4, "ema_decay": 0.5, "precision": precision}
    one = Learner(build("sifa_net_nano"), TrainConfig(**settings), device=gpu)
    before = copy.deepcopy(one.weights())
    for _ in range(4):
        loss = F.cross_entropy(one.logits(clip(2).to(gpu)).float(), torch.tensor([0, 1], device=gpu))
        assert loss.isfinite()
        one.backward(loss)
        one.gradient_norm()
        one.update()
    after = one.weights()
    assert any(not torch.equal(after[name], before[name]) for name in before)
    assert all(tensor.isfinite().all() for tensor in after.values())
    again = Learner(build("sifa_net_nano"), TrainConfig(**settings), device=gpu)
    again.load_state_dict(copy.deepcopy(one.state_dict()))
    assert_close(dict(again.weights()), dict(after), atol=0, rtol=0)
