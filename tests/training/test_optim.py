from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from sifa_zoo.config import TrainConfig
from sifa_zoo.training.optim import build_optimizer, build_scheduler, effective_rates, global_batch


def _rates(train: TrainConfig, *, updates: int, num_replicas: int = 1) -> list[float]:
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
    rates = _rates(train, updates=5)
    assert rates[:11] == pytest.approx([0.1 + 0.09 * step for step in range(11)])
    assert rates[10] == 1.0
    assert rates[30] == pytest.approx((1.0 + 0.01) / 2)  # halfway between the end of the warm-up and the end
    assert rates[-1] == pytest.approx(0.01)
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))


def test_warm_up_from_nothing_has_equal_steps():
    rates = _rates(TrainConfig(epochs=4, lr=1.0, warmup_epochs=1), updates=4)
    assert rates[0] == 0.25
    assert rates[4] == 1.0


@pytest.mark.parametrize("warmup_epochs", [0, 3, 5])
def test_any_warm_up(warmup_epochs):
    rates = _rates(TrainConfig(epochs=3, lr=1.0, warmup_epochs=warmup_epochs), updates=2)
    assert 0 < max(rates) <= 1


def test_one_update_after_the_warm_up_is_at_the_peak(caplog):
    assert _rates(TrainConfig(epochs=2, lr=1.0, warmup_epochs=1), updates=1)[:2] == [1.0, 1.0]
    assert not caplog.records


def test_rates_follow_the_global_batch():
    train = TrainConfig(lr=0.4, min_lr=0.01, warmup_lr=0.04, lr_batch=256, batch_size=8, accumulation_steps=4, epochs=2)
    assert global_batch(train, num_replicas=2) == 64
    rates = effective_rates(train, num_replicas=2)
    assert (rates.lr, rates.min_lr, rates.warmup_lr) == pytest.approx((0.1, 0.0025, 0.01))
    assert _rates(train, updates=3, num_replicas=2)[3] == pytest.approx(0.1)
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
