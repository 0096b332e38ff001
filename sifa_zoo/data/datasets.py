"""The dataset that cuts clips from labelled videos."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sifa_zoo.config import ClipConfig
from sifa_zoo.data import decode
from sifa_zoo.data.decode import VideoError, load_video, video_info
from sifa_zoo.data.mirror import mirror_labels
from sifa_zoo.data.sampling import clip_indices
from sifa_zoo.data.seeding import torch_seeded
from sifa_zoo.data.videos import VideoList

# Training decodes frames a little larger than the model's input, so that a crop has something to choose from.
_TRAIN_SHORT_SIDE = 1.15


def check_videos(videos: VideoList, *, workers: int = 0) -> list[str]:
    """Decodes the first frame of every video, `workers` at a time. Returns a line, `path: reason`, for each bad one."""
    if workers == 0:
        reasons = list(map(_why_bad, map(Path, videos.paths)))
    else:
        with ThreadPoolExecutor(workers) as pool:  # threads do: FFmpeg runs without Python's lock
            reasons = list(pool.map(_why_bad, map(Path, videos.paths)))
    return [reason for reason in reasons if reason is not None]


class ClipDataset(Dataset[tuple[Tensor, int | Tensor, int]]):
    """Clips of the videos in a list, with label and place in the list: `(clips, label, index)`.

    A label is an int, or, where videos may have several classes, a float tensor `(num_classes,)` of zeros and ones.
    For training (`seed` given) clips are one random clip, float32 `(C, T, H, W)`. All that is random, the transform
    included, depends on `(seed, epoch, index, draw)` alone, so not on the number of workers or the order; the key
    `(index, draw)`, as `ClipSampler` gives it, asks for another clip of a video that came before, and `index` alone for
    the first. For evaluation (no `seed`) they are evenly spaced, float32 `(num_clips * num_crops, C, T, H, W)`, the
    crops of a clip together.

    Args:
        videos: What to read.
        clip: How to cut a clip.
        transform: Maps uint8 `(T, C, H, W)` to the model's input; see `transforms`.
        num_clips: Clips per video in evaluation.
        num_crops: Crops per clip in evaluation, those of the transform.
        seed: Seed of training.
        mirrored: Mirror half of the training clips: the class that each class becomes, as `mirrored_classes` gives it.
            Clips of a class that becomes none are left as they are. None mirrors nothing.

    Raises:
        ValueError: If `num_clips` or `num_crops` is less than 1, or more for training; on access, if the transform
            gives another number of crops.
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
        for name, value in (("num_clips", num_clips), ("num_crops", num_crops)):
            if value < 1 or (seed is not None and value > 1):
                raise ValueError(f"{name} must be at least 1, and 1 for training, got {value}, {seed = }")
        self.videos = videos
        self.clip = clip
        self.transform = transform
        self.num_clips = num_clips
        self.num_crops = num_crops
        self.seed = seed
        self.mirrored = mirrored
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # loader workers that live on must see it

    def __len__(self) -> int:
        return len(self.videos)

    def set_epoch(self, epoch: int) -> None:
        """Gives each epoch other clips; call it before iterating, as with a `DistributedSampler`."""
        self._epoch.fill_(epoch)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, int | Tensor, int]:
        index, draw = key if isinstance(key, tuple) else (key, 0)
        path, labels = self.videos.path(index), self.videos.labels[index]
        if self.seed is None:
            clips = self._eval_clips(path)
        else:
            clips, labels = self._train_clip(
                path, labels, random.Random(f"{self.seed} {int(self._epoch)} {index} {draw}")
            )
        return clips, torch.from_numpy(labels).float() if self.videos.multi_label else int(labels), index

    def _train_clip(self, path: Path, labels: np.ndarray, generator: random.Random) -> tuple[Tensor, np.ndarray]:
        info = video_info(path)
        indices = self._indices(path, info.num_frames, generator=generator)
        short_side = min(round(self.clip.img_size * _TRAIN_SHORT_SIDE), info.height, info.width)  # never enlarged here
        frames = _load(path, indices, short_side)
        image_labels = mirror_labels(labels, self.mirrored)
        if generator.random() < 0.5 and image_labels is not None:
            frames, labels = frames.flip(-1), image_labels
        with torch_seeded(generator):
            return self.transform(frames), labels

    def _eval_clips(self, path: Path) -> Tensor:
        num_video_frames = video_info(path).num_frames
        indices = [i for clip in range(self.num_clips) for i in self._indices(path, num_video_frames, clip=clip)]
        frames = _load(path, indices, self.clip.short_side)
        views = torch.stack([self.transform(clip) for clip in frames.split(self.clip.num_frames)])
        num_crops = views.shape[1] if views.ndim == 6 else 1  # (num_clips, num_crops, C, T, H, W)
        if num_crops != self.num_crops:
            raise ValueError(
                f"the transform gives {num_crops} crops, but num_crops is {self.num_crops}; give it as well"
            )
        return views.flatten(0, 1) if views.ndim == 6 else views

    def _indices(
        self, path: Path, num_video_frames: int, *, clip: int = 0, generator: random.Random | None = None
    ) -> list[int]:
        timing: dict[str, Any] = {}
        if self.clip.fps is not None and self.clip.sampling == "dense":
            timing = {"fps": self.clip.fps, "times": _times(path)}
        return clip_indices(
            num_video_frames,
            num_frames=self.clip.num_frames,
            frame_stride=self.clip.frame_stride,
            sampling=self.clip.sampling,
            clip=clip,
            num_clips=self.num_clips,
            generator=generator,
            **timing,
        )


def _times(path: Path) -> np.ndarray:
    times = decode.frame_times(path)  # type: ignore[attr-defined]
    if not np.isfinite(times).all():
        raise VideoError(
            f"{path}: does not tell when its frames are shown, which fps needs; leave fps out or convert it"
        )
    return times


def _load(path: Path, indices: list[int], short_side: int) -> Tensor:
    return torch.from_numpy(load_video(path, indices, short_side)).permute(0, 3, 1, 2)  # (T, C, H, W)


def _why_bad(path: Path) -> str | None:
    try:
        load_video(path, [0])
    except VideoError as error:
        return str(error)
    return None
