"""From decoded frames to model input: torchvision's v2 transforms, drawn once per clip and so alike for all frames.

Everything random comes from torch's CPU generator, which `torch_seeded` seeds for a while. Mirroring is not done here,
because it may change the label; see `ClipCutter`. Frames are cropped first and stay uint8 as long as possible, which
makes the rest cheap.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import Video

from sifa_zoo.config import NUM_CROPS, AugmentConfig, ClipConfig
from sifa_zoo.datasets.colour_jitter import ClipColorJitter

_BLUR_REACH = 3  # standard deviations that the kernel covers on each side
_RAND_AUGMENT_BINS = 31  # magnitudes from 0 to 30, as in the paper and in SIFA's code


def train_transform(clip: ClipConfig, augment: AugmentConfig | None = None, *, normalize: bool = True) -> v2.Transform:
    """Random resized crop, and those of RandAugment, colour jitter, grayscale, blur and erasing that are turned on.

    Args:
        clip: Size, mean and deviation of the model's input.
        augment: How strong and how often; a `TrainConfig` is one, too. None takes the defaults: the crop alone.
        normalize: Whether to end with `normalize_clips`, or in uint8 for that to be done on another device.

    Returns:
        A transform from uint8 `(T, C, H, W)` to float32 `(C, T, img_size, img_size)`, normalised, or to uint8.

    Example:
        >>> train_transform(ClipConfig(img_size=64))(torch.zeros(8, 3, 90, 120, dtype=torch.uint8)).shape
        torch.Size([3, 8, 64, 64])
    """
    augment = augment or AugmentConfig()
    scale, ratio = (augment.crop_scale, 1.0), (1 / augment.crop_ratio, augment.crop_ratio)
    steps: list[v2.Transform] = [v2.RandomResizedCrop(clip.img_size, scale=scale, ratio=ratio, antialias=True)]
    if augment.rand_augment:
        magnitude = augment.rand_augment_magnitude
        steps.append(v2.RandAugment(augment.rand_augment, magnitude, num_magnitude_bins=_RAND_AUGMENT_BINS))
    if augment.color_jitter_prob:
        steps.append(v2.RandomApply([ClipColorJitter(*augment.color_jitter)], p=augment.color_jitter_prob))
    if augment.grayscale_prob:
        steps.append(v2.RandomGrayscale(augment.grayscale_prob))
    if augment.blur_prob:
        size = 2 * round(_BLUR_REACH * augment.blur_sigma[1]) + 1
        steps.append(v2.RandomApply([SeparableBlur(size, augment.blur_sigma)], p=augment.blur_prob))
    if augment.erase_prob:
        # the mean, which normalisation makes 0
        value = [255 * mean for mean in clip.mean]
        steps.append(v2.RandomErasing(augment.erase_prob, value=value))
    return v2.Compose([*steps, *_to_input(clip, normalize=normalize)])


def eval_transform(clip: ClipConfig, num_crops: int = 1, *, normalize: bool = True) -> v2.Transform:
    """Resizes the short side to `clip.short_side` (frames that have it are untouched), then takes one crop or three.

    Args:
        clip: Sizes, mean and deviation of the model's input.
        num_crops: 1 for the centre; 3 for both ends and the middle of the longer side, as in SlowFast.
        normalize: As of `train_transform`.

    Returns:
        A transform from uint8 `(T, C, H, W)` to float32 `(C, T, img_size, img_size)`, normalised, or to uint8; with
        three crops to `(3, C, T, img_size, img_size)`, from left to right or from top to bottom.

    Raises:
        ValueError: If `num_crops` is neither.

    Example:
        >>> eval_transform(ClipConfig(img_size=64))(torch.zeros(8, 3, 90, 120, dtype=torch.uint8)).shape
        torch.Size([3, 8, 64, 64])
    """
    if num_crops not in NUM_CROPS:
        raise ValueError(f"num_crops must be one of {NUM_CROPS}, got {num_crops = }")
    crop: v2.Transform = v2.CenterCrop(clip.img_size)
    if num_crops == 3:
        crop = v2.Lambda(partial(_three_crops, size=clip.img_size))
    return v2.Compose([v2.Resize(clip.short_side, antialias=True), crop, *_to_input(clip, normalize=normalize)])


def normalize_clips(clips: Tensor, clip: ClipConfig) -> Tensor:
    """The model's input from clips of a transform without `normalize`; floating-point clips are taken as normalised.

    Args:
        clips: uint8 `(..., C, T, H, W)`, on any device.
        clip: Has mean and deviation.

    Returns:
        float32, of the same shape.

    Example:
        >>> clip = ClipConfig(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        >>> normalize_clips(torch.full((3, 1, 1, 1), 255, dtype=torch.uint8), clip).flatten()
        tensor([1., 1., 1.])
    """
    if clips.is_floating_point():
        return clips
    mean, std = _statistics(clip.mean, clip.std, clips.device)
    return clips.float().mul_(1 / 255).sub_(mean).div_(std)  # as torchvision does it, to the last bit


@lru_cache(16)
def _statistics(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Both as `(C, 1, 1, 1)` on a device: to send them there with each batch would wait for it."""
    of_channel, by_channel = (torch.tensor(values, device=device).view(-1, 1, 1, 1) for values in (mean, std))
    return of_channel, by_channel


class SeparableBlur(v2.GaussianBlur):
    """`v2.GaussianBlur` first along rows and then along columns, at half of its cost; for uint8 `(T, C, H, W)`.

    Other dtypes are left to torchvision.
    """

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Blurs with the deviations drawn; a value may be rounded to the other side where it is half-way."""
        if inpt.dtype != torch.uint8:
            return super().transform(inpt, params)
        (width, height), sigma = self.kernel_size, params["sigma"]
        frames = inpt.float().contiguous(memory_format=torch.channels_last)  # others take six times as long
        across = F.gaussian_blur(frames, [width, 1], sigma)
        return F.gaussian_blur(across, [1, height], sigma).round_().to(torch.uint8)


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
            order = torch.randperm(len(labels)).to(labels.device, non_blocking=True)
            mixed, targets = mix(Video(clips[order]), targets[order])
        return mixed.as_subclass(Tensor), targets


@contextmanager
def torch_seeded(generator: random.Random) -> Iterator[None]:
    """Seeds torch's CPU generator with the next number of `generator`, and restores it afterwards."""
    with torch.random.fork_rng(devices=[]):
        # not torch.manual_seed, which would seed the GPUs as well
        torch.default_generator.manual_seed(generator.getrandbits(63))
        yield


def _three_crops(frames: Tensor, size: int) -> Tensor:
    height, width = frames.shape[-2:]
    top, left = round((height - size) / 2), round((width - size) / 2)
    if height > width:
        corners = [(0, left), (top, left), (height - size, left)]
    else:
        corners = [(top, 0), (top, left), (top, width - size)]
    return torch.stack([F.crop(frames, top, left, size, size) for top, left in corners])  # (3, T, C, H, W)


def _to_input(clip: ClipConfig, *, normalize: bool) -> list[v2.Transform]:
    normalized = [v2.Lambda(partial(normalize_clips, clip=clip))] if normalize else []
    return [v2.Lambda(_channels_first), *normalized]


def _channels_first(frames: Tensor) -> Tensor:
    return frames.transpose(-4, -3).contiguous()  # (C, T, H, W), with three crops (3, C, T, H, W)
