"""A model with all that an update changes: optimiser, loss scale, averaged weights; and the rates of its updates."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from sifa_zoo.config import TrainConfig
from sifa_zoo.runtime.devices import autocast
from sifa_zoo.runtime.processes import world_size
from sifa_zoo.training.distributed import divide, load_states, model_state, optimizer_state, replicate, sync_batch_norm
from sifa_zoo.training.freezing import freeze


class Learner:
    """A model with its optimiser, loss scale and averaged weights.

    Args:
        model: A model of the zoo; frozen, compiled or divided in place, as the settings say.
        train: The settings.
        device: Where to train.

    Raises:
        ValueError: If a setting is not possible with this model or device.
    """

    def __init__(self, model: nn.Module, train: TrainConfig, *, device: torch.device) -> None:
        self.train = train
        self.device = device
        freeze(model, train.freeze, linear_probe=train.linear_probe)
        if getattr(model, "dual_head", False):
            model.set_dual_training(True)  # type: ignore[operator]
        if train.grad_checkpointing:
            model.set_grad_checkpointing(True)  # type: ignore[operator]
        model = model.to(device)
        # FSDP divides contiguous weights only; convolutions follow the clips' memory format anyway.
        self.model = model if train.fsdp else model.to(memory_format=torch.channels_last)
        if train.sync_bn:
            self.model = sync_batch_norm(self.model, device)
        # Without warm-up of the decay, a short run's average would hardly leave its start.
        self.ema = ModelEmaV3(self.model, decay=train.ema_decay, use_warmup=True) if train.ema_decay else None
        if train.fsdp:
            divide(self.model, device)
        if train.compile:
            self.model.compile()
        self.net = replicate(self.model, device)
        self.optimizer = build_optimizer(self.model, train, num_replicas=world_size())
        self.scaler = torch.amp.GradScaler(device.type, enabled=train.precision == "fp16")
        self.updates = 0

    @property
    def lr(self) -> float:
        """The learning rate of the next update, in the layers where it is highest."""
        return max(group["lr"] for group in self.optimizer.param_groups)

    @property
    def evaluated(self) -> nn.Module:
        """The model that is validated and saved: the averaged one if there is one."""
        return self.model if self.ema is None else self.ema.module

    def logits(self, clips: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The logits of clips that are on the device; a tuple if two heads are trained."""
        with autocast(self.device, self.train.precision):
            return self.net(clips)

    def backward(self, loss: Tensor, *, last: bool = True) -> None:
        """Add the gradient of a loss; processes need to average theirs only with the `last` one of an update."""
        # If batches may be left out, so may the last one: gradients must then be averaged with each.
        local = not last and not self.train.skip_bad and isinstance(self.net, DistributedDataParallel)
        context: Any = self.net.no_sync if local else nullcontext
        with context():
            self.scaler.scale(loss).backward()

    def gradient_norm(self, *, scale: float = 1.0) -> Tensor:
        """Scale the gradient and clip it as the settings say; returns its norm before clipping."""
        self.scaler.unscale_(self.optimizer)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        for parameter in trained if scale != 1 else ():
            if parameter.grad is not None:
                parameter.grad.mul_(scale)
        norm = clip_grad_norm_(trained, self.train.clip_grad or math.inf)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def update(self, *, empty: bool = False) -> None:
        """Make an update; `empty` if no batch of it gave a gradient."""
        if not empty:
            self.scaler.step(self.optimizer)  # after an fp16 overflow, `update` lowers the scale instead
            self.scaler.update()
        self.optimizer.zero_grad()
        self.updates += 1
        if self.ema is not None:
            self.ema.update(self.model, step=self.updates)

    @property
    def overflow_is_usual(self) -> bool:
        """Whether fp16 is still looking for the largest loss scale without overflow; below 1 there is none."""
        return self.scaler.is_enabled() and self.scaler.get_scale() >= 1

    def weights(self) -> dict[str, Tensor]:
        """The state_dict to save, on the writer. All processes must call it."""
        return model_state(self.evaluated)

    def state_dict(self) -> dict[str, Any]:
        """All that an update changes, on the writer. All processes must call it."""
        return {
            "model": model_state(self.model),
            "optimizer": optimizer_state(self.model, self.optimizer),
            "scaler": self.scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`, on every process."""
        load_states(self.model, self.optimizer, state)
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.updates = state["updates"]


def build_optimizer(model: nn.Module, train: TrainConfig, *, num_replicas: int = 1) -> Optimizer:
    """timm's optimiser `train.opt`; biases, norms and the parameters in the model's `no_weight_decay` do not decay.

    With layer decay, the layers are those of the model's `group_matcher`, and the head learns at the full rate.
    """
    rates = effective_rates(train, num_replicas=num_replicas)
    optimizer = create_optimizer_v2(
        model,
        train.opt,
        lr=rates.lr,
        momentum=train.momentum,
        weight_decay=train.weight_decay,
        layer_decay=train.layer_decay if train.layer_decay < 1 else None,
    )
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]  # as a scheduler does, but before a state is loaded: FSDP needs it there
    return optimizer


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


@dataclass(frozen=True)
class Rates:
    """Learning rates in effect; with `warmup_lr` 0, the first update gets the first increment of the warm-up."""

    lr: float
    min_lr: float
    warmup_lr: float


def effective_rates(train: TrainConfig, *, num_replicas: int = 1) -> Rates:
    """The rates of `train`, scaled to the global batch if `lr_batch` names the batch that they are meant for.

    Example:
        >>> effective_rates(TrainConfig(lr=0.4, lr_batch=256, batch_size=8, accumulation_steps=4)).lr
        0.05
    """
    scale = global_batch(train, num_replicas=num_replicas) / train.lr_batch if train.lr_batch else 1.0
    return Rates(train.lr * scale, train.min_lr * scale, train.warmup_lr * scale)


def global_batch(train: TrainConfig, *, num_replicas: int = 1) -> int:
    """Clips per update, over all processes."""
    return train.batch_size * train.accumulation_steps * num_replicas
