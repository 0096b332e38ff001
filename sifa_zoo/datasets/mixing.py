"""MixUp and CutMix of a batch of clips: torchvision's, alike for all frames of a clip."""

from __future__ import annotations

import random

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchvision.transforms import v2
from torchvision.tv_tensors import Video

from sifa_zoo.config import AugmentConfig
from sifa_zoo.datasets.transforms import torch_seeded


class BatchMixer:
    """Mixes each clip of a batch with another, and their labels in the same proportion.

    Args:
        augment: Only `mixup_alpha`, `cutmix_alpha` and `mix_prob` are used. With both alphas each batch takes one of
            the two at random.
        num_classes: Classes of the model.
        seed: Everything random depends on `(seed, epoch, step)` alone.

    Example:
        >>> mixer = BatchMixer(AugmentConfig(mixup_alpha=0.2), num_classes=3, seed=0)
        >>> clips, targets = mixer(torch.rand(2, 3, 4, 8, 8), torch.tensor([0, 2]), epoch=0, step=0)
        >>> targets.shape
        torch.Size([2, 3])
    """

    def __init__(self, augment: AugmentConfig, *, num_classes: int, seed: int) -> None:
        kinds = ((v2.MixUp, augment.mixup_alpha), (v2.CutMix, augment.cutmix_alpha))
        self.mixes = [kind(alpha=alpha) for kind, alpha in kinds if alpha]
        self.prob = augment.mix_prob
        self.num_classes = num_classes
        self.seed = seed

    def __call__(self, clips: Tensor, labels: Tensor, *, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Mixes clips `(B, C, T, H, W)` with labels int64 `(B,)` or float `(B, num_classes)`.

        Returns:
            The mixed clips in another order, and their targets, float32 `(B, num_classes)`; clips and labels unchanged
            if this batch is not mixed.
        """
        generator = random.Random(f"{self.seed} {epoch} {step}")
        if not self.mixes or len(labels) < 2 or generator.random() >= self.prob:
            return clips, labels
        mix = generator.choice(self.mixes)
        targets = one_hot(labels, self.num_classes).float() if labels.ndim == 1 else labels
        with torch_seeded(generator):
            # torchvision mixes neighbours, which may be clips of one video
            order = torch.randperm(len(labels)).to(labels.device)
            mixed, targets = mix(Video(clips[order]), targets[order])
        return mixed.as_subclass(Tensor), targets
