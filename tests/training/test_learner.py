from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sifa_zoo
from sifa_zoo.config import TrainConfig
from sifa_zoo.training.freezing import train_mode
from sifa_zoo.training.learner import Learner, build_optimizer, build_scheduler, effective_rates, global_batch

CPU = torch.device("cpu")
CLIPS, LABELS = torch.randn(2, 3, 4, 32, 32), torch.tensor([0, 1])


def nano(name: str = "sifa_net_nano", **options: Any) -> nn.Module:
    torch.manual_seed(0)
    size = {"img_size": 64} if "transformer" in name else {"img_size": 32}
    return sifa_zoo.create_model(name, num_classes=2, num_frames=4, **size, **options)


def learner(model: nn.Module | None = None, **settings: Any) -> Learner:
    settings = {"lr": 1e-2, "warmup_epochs": 0, "epochs": 4, **settings}
    return Learner(model or nano(), TrainConfig(**settings), device=CPU)


def step(one: Learner) -> float:
    train_mode(one.model)
    loss = F.cross_entropy(one.logits(CLIPS).float(), LABELS)
    one.backward(loss)
    one.gradient_norm()
    one.update()
    schedule(one)
    return loss.item()


def schedule(one: Learner) -> None:
    build_scheduler(one.optimizer, one.train, updates_per_epoch=2).step_update(one.updates)


def test_rates_decay_from_the_head_to_the_stem():
    one = learner(layer_decay=0.5, opt="sgd")
    schedule(one)
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
def test_what_the_model_names_does_not_decay(layer_decay):
    one = learner(nano("sifa_transformer_nano"), layer_decay=layer_decay, weight_decay=0.1)
    names = {id(parameter): name for name, parameter in one.model.named_parameters()}
    decays = {names[id(p)]: group["weight_decay"] for group in one.optimizer.param_groups for p in group["params"]}
    exempt = one.model.no_weight_decay()  # type: ignore[operator]
    assert exempt
    for name, parameter in one.model.named_parameters():
        assert decays[name] == (0 if name in exempt or parameter.ndim < 2 else 0.1), name


def test_the_average_of_weights_is_what_is_kept():
    one = learner(ema_decay=0.5, opt="sgd")
    start = copy.deepcopy(one.model.state_dict())
    step(one)
    step(one)
    weight, average = one.model.get_parameter("head.fc.weight"), one.weights()["head.fc.weight"]
    assert one.evaluated is not one.model
    assert not torch.equal(weight, average)
    first = start["head.fc.weight"]
    assert ((average - first).norm() < (weight - first).norm()).item()


def test_state_is_all_that_an_update_changes():
    settings = {"ema_decay": 0.9, "drop_rate": 0.0, "precision": "bf16"}
    one, other = learner(**settings), learner(nano(), **settings)
    step(one)
    state = copy.deepcopy(one.state_dict())
    expected = [step(one), step(one)]
    other.load_state_dict(state)
    assert [step(other), step(other)] == expected
    for name, tensor in one.weights().items():
        assert torch.equal(tensor, other.weights()[name]), name


def test_fp16_lowers_its_scale_instead_of_failing():
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


def test_checkpointed_activations_change_nothing():
    one, other = learner(opt="sgd"), learner(opt="sgd", grad_checkpointing=True)
    assert [step(one), step(one)] == pytest.approx([step(other), step(other)], rel=1e-5)


def test_a_compiled_model_keeps_its_names(monkeypatch):
    """With a backend that compiles nothing; whole graphs of the models are compiled elsewhere."""
    real = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda model: real(model, backend="eager"))
    one, other = learner(opt="sgd"), learner(opt="sgd", compile=True)
    assert step(other) == pytest.approx(step(one), rel=1e-5)
    assert other.weights().keys() == one.weights().keys()
    assert other.model._compiled_call_impl is not None


def test_what_is_frozen_does_not_move():
    model = nano()
    one = learner(model, freeze="^(conv1|bn1|layer1)", opt="sgd")
    before = copy.deepcopy(model.state_dict())
    step(one)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not [name for name in changed if name.startswith(("conv1", "bn1", "layer1"))]  # running statistics neither
    assert "layer2.0.conv1.weight" in changed
    assert "layer2.0.bn1.running_mean" in changed


def rates_of(train: TrainConfig, *, updates: int, num_replicas: int = 1) -> list[float]:
    """The rate of every update of a run, and the one after its end."""
    optimizer = build_optimizer(nn.Linear(2, 2), train, num_replicas=num_replicas)
    scheduler = build_scheduler(optimizer, train, updates_per_epoch=updates, num_replicas=num_replicas)
    rates = []
    for update in range(train.epochs * updates + 1):
        scheduler.step_update(update)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def test_rates_as_given():
    train = TrainConfig(epochs=10, lr=1.0, min_lr=0.01, warmup_lr=0.1, warmup_epochs=2)
    rates = rates_of(train, updates=5)
    assert rates[:11] == pytest.approx([0.1 + 0.09 * step for step in range(11)])
    assert rates[10] == 1.0
    assert rates[30] == pytest.approx((1.0 + 0.01) / 2)  # halfway between the end of the warm-up and the end
    assert rates[-1] == pytest.approx(0.01)
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))


def test_warm_up_from_nothing_has_equal_steps():
    rates = rates_of(TrainConfig(epochs=4, lr=1.0, warmup_epochs=1), updates=4)
    assert rates[0] == 0.25
    assert rates[4] == 1.0


@pytest.mark.parametrize("warmup_epochs", [0, 3, 5])
def test_any_warm_up(warmup_epochs):
    rates = rates_of(TrainConfig(epochs=3, lr=1.0, warmup_epochs=warmup_epochs), updates=2)
    assert 0 < max(rates) <= 1


def test_one_update_after_the_warm_up_is_at_the_peak(caplog):
    assert rates_of(TrainConfig(epochs=2, lr=1.0, warmup_epochs=1), updates=1)[:2] == [1.0, 1.0]
    assert not caplog.records


def test_rates_follow_the_global_batch():
    train = TrainConfig(lr=0.4, min_lr=0.01, warmup_lr=0.04, lr_batch=256, batch_size=8, accumulation_steps=4, epochs=2)
    assert global_batch(train, num_replicas=2) == 64
    rates = effective_rates(train, num_replicas=2)
    assert (rates.lr, rates.min_lr, rates.warmup_lr) == pytest.approx((0.1, 0.0025, 0.01))
    assert rates_of(train, updates=3, num_replicas=2)[3] == pytest.approx(0.1)
    assert effective_rates(TrainConfig(lr=0.4, batch_size=8)).lr == 0.4


@pytest.mark.parametrize(("opt", "nesterov"), [("sgd", True), ("momentum", False)])
def test_momentum(opt, nesterov):
    optimizer = build_optimizer(nn.Linear(2, 2), TrainConfig(opt=opt, momentum=0.8))
    assert all((group["momentum"], group["nesterov"]) == (0.8, nesterov) for group in optimizer.param_groups)


@pytest.mark.parametrize(("opt", "name"), [("adamw", "AdamW"), ("muon", "Muon")])
def test_optimisers_without_momentum_and_others_are_built(opt, name):
    assert type(build_optimizer(nn.Linear(2, 2), TrainConfig(opt=opt))).__name__ == name


def test_biases_do_not_decay():
    optimizer = build_optimizer(nn.Linear(2, 2), TrainConfig(weight_decay=0.3))
    decays = {tuple(p.shape): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays == {torch.Size([2]): 0.0, torch.Size([2, 2]): 0.3}
