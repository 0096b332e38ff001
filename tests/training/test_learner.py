from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sifa_zoo
from sifa_zoo.config import TrainConfig
from sifa_zoo.training.freezing import freeze, train_mode
from sifa_zoo.training.learner import Learner

CPU = torch.device("cpu")
CLIPS, LABELS = torch.randn(2, 3, 4, 32, 32), torch.tensor([0, 1])


def nano(name: str = "sifa_net_nano", **options: Any) -> nn.Module:
    torch.manual_seed(0)
    size = {"img_size": 64} if "transformer" in name else {"img_size": 32}
    return sifa_zoo.create_model(name, num_classes=2, num_frames=4, **size, **options)


def learner(model: nn.Module | None = None, **settings: Any) -> Learner:
    settings = {"lr": 1e-2, "warmup_epochs": 0, "epochs": 4, **settings}
    return Learner(model or nano(), TrainConfig(**settings), updates_per_epoch=2, device=CPU)


def step(one: Learner) -> float:
    train_mode(one.model)
    loss = F.cross_entropy(one.logits(CLIPS).float(), LABELS)
    one.backward(loss)
    one.gradient_norm()
    one.update()
    return loss.item()


def test_rates_decay_from_the_head_to_the_stem() -> None:
    one = learner(layer_decay=0.5, opt="sgd")
    rates = {}
    for group in one.optimizer.param_groups:
        for parameter in group["params"]:
            rates[id(parameter)] = group["lr"]
    by_name = {name: rates[id(parameter)] for name, parameter in one.model.named_parameters()}
    assert by_name["head.fc.weight"] == one.lr == 1e-2
    blocks = [by_name[f"layer{i}.0.conv1.weight"] for i in (1, 2, 3, 4)]
    assert blocks == sorted(blocks)
    assert by_name["conv1.0.weight"] < blocks[0]
    ratios = {round(1e-2 / rate, 6) for rate in by_name.values()}
    assert ratios <= {2.0**power for power in range(12)}
    step(one)  # the schedule keeps the ratios
    assert one.optimizer.param_groups[0]["lr"] < 1e-3


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_what_the_model_names_does_not_decay(layer_decay: float) -> None:
    one = learner(nano("sifa_transformer_nano"), layer_decay=layer_decay, weight_decay=0.1)
    names = {id(parameter): name for name, parameter in one.model.named_parameters()}
    decays = {names[id(p)]: group["weight_decay"] for group in one.optimizer.param_groups for p in group["params"]}
    exempt = one.model.no_weight_decay()  # type: ignore[operator]
    assert exempt
    for name, parameter in one.model.named_parameters():
        assert decays[name] == (0 if name in exempt or parameter.ndim < 2 else 0.1), name


def test_the_average_of_weights_is_what_is_kept() -> None:
    one = learner(ema_decay=0.5, opt="sgd")
    start = copy.deepcopy(one.model.state_dict())
    step(one)
    step(one)
    weight, average = one.model.get_parameter("head.fc.weight"), one.weights()["head.fc.weight"]
    assert one.evaluated is not one.model
    assert not torch.equal(weight, average)
    first = start["head.fc.weight"]
    assert ((average - first).norm() < (weight - first).norm()).item()


def test_state_is_all_that_an_update_changes() -> None:
    settings = {"ema_decay": 0.9, "drop_rate": 0.0, "precision": "bf16"}
    one, other = learner(**settings), learner(nano(), **settings)
    step(one)
    state = copy.deepcopy(one.state_dict())
    expected = [step(one), step(one)]
    other.load_state_dict(state)
    assert [step(other), step(other)] == expected
    for name, tensor in one.weights().items():
        assert torch.equal(tensor, other.weights()[name]), name


def test_fp16_lowers_its_scale_instead_of_failing() -> None:
    one = learner(precision="fp16")
    assert one.scaler.is_enabled()
    assert step(one) == pytest.approx(step(learner()), rel=0.1)
    scale = one.scaler.get_scale()
    one.backward(torch.stack([p.sum() for p in one.model.parameters()]).sum() * 1e38 * 1e3)
    assert not torch.isfinite(one.gradient_norm())
    assert one.overflow_is_usual
    weight = one.model.get_parameter("head.fc.weight").clone()
    one.update()
    assert one.scaler.get_scale() < scale
    assert torch.equal(weight, one.model.get_parameter("head.fc.weight"))


def test_checkpointed_activations_change_nothing() -> None:
    one, other = learner(opt="sgd"), learner(opt="sgd", grad_checkpointing=True)
    assert [step(one), step(one)] == pytest.approx([step(other), step(other)], rel=1e-5)


def test_a_compiled_model_keeps_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a backend that compiles nothing; whole graphs of the models are compiled elsewhere."""
    real = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda model: real(model, backend="eager"))
    one, other = learner(opt="sgd"), learner(opt="sgd", compile=True)
    assert step(other) == pytest.approx(step(one), rel=1e-5)
    assert other.weights().keys() == one.weights().keys()
    assert other.model._compiled_call_impl is not None


@pytest.mark.parametrize("name", ["sifa_net_nano", "sifa_transformer_nano"])
def test_freezing_stages(name: str) -> None:
    model = nano(name)
    frozen = freeze(model, "2")
    stages = ("layer1.", "layer2.", "conv1.", "bn1.") if "net" in name else ("layers.0.", "layers.1.", "patch_embed.")
    assert frozen == [name for name, _ in model.named_parameters() if name.startswith(stages)]
    assert all(parameter.requires_grad != (name in frozen) for name, parameter in model.named_parameters())


def test_what_is_frozen_does_not_move() -> None:
    model = nano()
    one = learner(model, freeze="^(conv1|bn1|layer1)", opt="sgd")
    before = copy.deepcopy(model.state_dict())
    step(one)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not [name for name in changed if name.startswith(("conv1", "bn1", "layer1"))]  # running statistics neither
    assert "layer2.0.conv1.weight" in changed
    assert "layer2.0.bn1.running_mean" in changed


@pytest.mark.parametrize("options", [{}, {"dual_head": True}])
def test_a_linear_probe_trains_the_classifier(options: dict[str, Any]) -> None:
    frames = 8 if options else 4
    model = sifa_zoo.create_model("sifa_net_nano", num_classes=2, num_frames=frames, img_size=32, **options)
    freeze(model, linear_probe=True)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    heads = ("head", "head_dual") if options else ("head",)
    assert trained == {f"{head}.fc.{part}" for head in heads for part in ("weight", "bias")}
    train_mode(model)
    assert not model.layer4.training
    assert model.training


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("no such name", "got 'no such name', which freezes 0 of 110"),
        (".", "got '.', which freezes 110 of 110"),
        ("9", "a number of stages from 1 to 4 or a pattern, got 9"),
        ("0", "a number of stages from 1 to 4 or a pattern, got 0"),
        ("(", r"a number of stages or a regular expression, got '\('"),
    ],
)
def test_freezing_nothing_or_all_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        freeze(nano(), pattern)
