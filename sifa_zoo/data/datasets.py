"""The dataset that cuts clips from labelled videos."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sifa_zoo.config import ClipConfig
from sifa_zoo.data.decode import VideoError, load_video, video_info
from sifa_zoo.data.sampling import clip_indices
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


class ClipDataset(Dataset[tuple[Tensor, Tensor, int]]):
    """Clips of the videos in a list, with label and place in the list: `(clips, label, index)`.

    For training (`seed` given) clips are one random clip, float32 `(C, T, H, W)`. All that is random, the transform
    included, depends on `(seed, epoch, index)` alone, so not on the number of workers or the order. For evaluation
    (no `seed`) they are evenly spaced, float32 `(num_clips, C, T, H, W)`.

    Args:
        videos: What to read.
        clip: How to cut a clip.
        transform: Maps uint8 `(T, C, H, W)` to the model's input; see `transforms`.
        num_clips: Clips per video in evaluation.
        seed: Seed of training.

    Raises:
        ValueError: If `num_clips` is less than 1, or more for training.
        VideoError: On access, if a video cannot be decoded.

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
        seed: int | None = None,
    ) -> None:
        if num_clips < 1 or (seed is not None and num_clips > 1):
            raise ValueError(f"num_clips must be at least 1, and 1 for training, got {num_clips = }, {seed = }")
        self.videos = videos
        self.clip = clip
        self.transform = transform
        self.num_clips = num_clips
        self.seed = seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # loader workers that live on must see it

    def __len__(self) -> int:
        return len(self.videos)

    def set_epoch(self, epoch: int) -> None:
        """Gives each epoch other clips; call it before iterating, as with a `DistributedSampler`."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        path, label = self.videos.path(index), torch.as_tensor(self.videos.labels[index])
        clips = self._eval_clips(path) if self.seed is None else self._train_clip(path, index)
        return clips, label, index

    def _train_clip(self, path: Path, index: int) -> Tensor:
        generator = random.Random(f"{self.seed} {int(self._epoch)} {index}")
        info = video_info(path)
        indices = self._indices(info.num_frames, generator=generator)
        short_side = min(round(self.clip.img_size * _TRAIN_SHORT_SIDE), info.height, info.width)  # never enlarged here
        frames = _load(path, indices, short_side)
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would seed the GPUs as well.
            torch.default_generator.manual_seed(generator.getrandbits(63))
            return self.transform(frames)

    def _eval_clips(self, path: Path) -> Tensor:
        num_video_frames = video_info(path).num_frames
        indices = [i for clip in range(self.num_clips) for i in self._indices(num_video_frames, clip=clip)]
        frames = _load(path, indices, self.clip.short_side)
        return torch.stack([self.transform(clip) for clip in frames.split(self.clip.num_frames)])

    def _indices(self, num_video_frames: int, *, clip: int = 0, generator: random.Random | None = None) -> list[int]:
        return clip_indices(
            num_video_frames,
            num_frames=self.clip.num_frames,
            frame_stride=self.clip.frame_stride,
            sampling=self.clip.sampling,
            clip=clip,
            num_clips=self.num_clips,
            generator=generator,
        )


def _load(path: Path, indices: list[int], short_side: int) -> Tensor:
    return torch.from_numpy(load_video(path, indices, short_side)).permute(0, 3, 1, 2)  # (T, C, H, W)


def _why_bad(path: Path) -> str | None:
    try:
        load_video(path, [0])
    except VideoError as error:
        return str(error)
    return None
