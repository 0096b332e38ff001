"""The dataset of clips cut from a list of labelled videos."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.clips import ClipCutter
from sifa_zoo.datasets.videos import VideoList


class ClipDataset(Dataset[tuple[Tensor, int | Tensor, int]]):
    """Clips of the videos in a list, with label and place in the list: `(clips, label, index)`.

    The label is an int, or a float tensor `(num_classes,)` of zeros and ones where videos may have several classes.

    For training (`seed` given), an item has one random clip, float32 `(C, T, H, W)`. Everything random, including the
    transform, depends on `(seed, epoch, index, draw)` alone, not on the number of workers or the order of access. A key
    is `(index, draw)`, as from `ClipSampler`, where each draw gives another clip, or `index` for the first draw.

    For evaluation (no `seed`), an item has evenly spaced clips, float32 `(num_clips * num_crops, C, T, H, W)`, the
    crops of a clip side by side.

    Args:
        videos: What to read.
        clip: How to cut a clip.
        transform: Maps uint8 `(T, C, H, W)` to the model's input; see `transforms`.
        num_clips: Clips per video in evaluation.
        num_crops: Crops per clip in evaluation, which the transform makes.
        seed: Seed of training.
        mirrored: The class that each class becomes when mirrored, from `mirrored_classes`: mirrors half of the training
            clips, but none of a class without a mirror image. None mirrors nothing.

    Raises:
        ValueError: If `num_clips` or `num_crops` is less than 1, or more for training; on access, if the transform
            makes another number of crops.
        VideoError: On access, if a video cannot be decoded, or has no times where `clip.fps` needs them.

    Example:
        >>> clip = ClipConfig(img_size=112)
        >>> dataset = ClipDataset(read_videos("videos", "val"), clip, eval_transform(clip))  # doctest: +SKIP
        >>> dataset[0][0].shape  # doctest: +SKIP
        torch.Size([1, 3, 16, 112, 112])
    """

    def __init__(
        self,
        videos: VideoList,
        clip: ClipConfig,
        transform: Callable[[Tensor], Tensor],
        *,
        num_clips: int = 1,
        num_crops: int = 1,
        seed: int | None = None,
        mirrored: np.ndarray | None = None,
    ) -> None:
        if seed is not None and max(num_clips, num_crops) > 1:
            raise ValueError(f"training takes one clip and one crop, got {num_clips = }, {num_crops = }, {seed = }")
        self.videos = videos
        self.seed = seed
        self.cutter = ClipCutter(clip, transform, num_clips=num_clips, num_crops=num_crops, mirrored=mirrored)
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # persistent loader workers must see it

    def __len__(self) -> int:
        return len(self.videos)

    def name(self, index: int) -> str:
        """The name of a video: its path."""
        return str(self.videos.paths[index])

    def set_epoch(self, epoch: int) -> None:
        """Gives an epoch its own clips; call it before iterating, as with a `DistributedSampler`."""
        self._epoch.fill_(epoch)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, int | Tensor, int]:
        index, draw = key if isinstance(key, tuple) else (key, 0)
        path, labels = self.videos.path(index), self.videos.labels[index]
        if self.seed is None:
            clips = self.cutter.evaluate(path)
        else:
            generator = random.Random(f"{self.seed} {int(self._epoch)} {index} {draw}")
            clips, labels = self.cutter.train(path, labels, generator)
        return clips, torch.from_numpy(labels).float() if self.videos.multi_label else int(labels), index
