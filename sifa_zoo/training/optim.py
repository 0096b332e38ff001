"""Optimiser and learning rate of a training run."""

from __future__ import annotations

from dataclasses import dataclass

from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.optim import Optimizer

from sifa_zoo.config import TrainConfig


@dataclass(frozen=True)
class Rates:
    """Learning rates in effect; with `warmup_lr` 0, the first update gets the first increment of the warm-up."""

    lr: float
    min_lr: float
    warmup_lr: float


def global_batch(train: TrainConfig, *, num_replicas: int = 1) -> int:
    """Clips per update, over all processes."""
    return train.batch_size * train.accumulation_steps * num_replicas


def effective_rates(train: TrainConfig, *, num_replicas: int = 1) -> Rates:
    """The rates of `train`, scaled to the global batch if `lr_batch` names the batch that they are meant for.

    Example:
        >>> effective_rates(TrainConfig(lr=0.4, lr_batch=256, batch_size=8, accumulation_steps=4)).lr
        0.05
    """
    scale = global_batch(train, num_replicas=num_replicas) / train.lr_batch if train.lr_batch else 1.0
    return Rates(train.lr * scale, train.min_lr * scale, train.warmup_lr * scale)


def build_optimizer(model: nn.Module, train: TrainConfig, *, num_replicas: int = 1) -> Optimizer:
    """timm's optimiser `train.opt`; biases, norms and the parameters in the model's `no_weight_decay` do not decay.

    With layer decay, the layers are those of the model's `group_matcher`, and the head learns at the full rate.
    """
    rates = effective_rates(train, num_replicas=num_replicas)
    return create_optimizer_v2(
        model,
        train.opt,
        lr=rates.lr,
        momentum=train.momentum,
        weight_decay=train.weight_decay,
        layer_decay=train.layer_decay if train.layer_decay < 1 else None,
    )


def build_scheduler(
    optimizer: Optimizer, train: TrainConfig, *, updates_per_epoch: int, num_replicas: int = 1
) -> CosineLRScheduler:
    """Linear warm-up, then a cosine down to `min_lr`, set for each update."""
    rates = effective_rates(train, num_replicas=num_replicas)
    warmup = round(train.warmup_epochs * updates_per_epoch)
    # timm warns of a cosine of 1 update; one of 2 gives that update the same rate.
    cosine_updates = max(2, train.epochs * updates_per_epoch - warmup)
    return CosineLRScheduler(
        optimizer,
        cosine_updates,
        lr_min=rates.min_lr,
        warmup_t=warmup,
        warmup_lr_init=rates.warmup_lr or rates.lr / max(1, warmup),
        warmup_prefix=True,
        t_in_epochs=False,
    )
