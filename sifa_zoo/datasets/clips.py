"""From a row of a list to the model's input: frames chosen, decoded, mirrored and transformed."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.mirror import mirror_labels
from sifa_zoo.datasets.sampling import clip_indices
from sifa_zoo.datasets.transforms import torch_seeded
from sifa_zoo.datasets.videos import VideoList
from sifa_zoo.video.load import VideoError
from sifa_zoo.video.reader import FolderReader, Video, VideoReader, open_reader

# Training decodes frames a little larger than the model's input, so that random crops differ.
TRAIN_SHORT_SIDE = 1.15


class ClipDataset(Dataset[tuple[Tensor, int | Tensor, int]]):
    """Clips of the videos in a list, with label and place in the list: `(clips, label, index)`, as `ClipCutter` cuts.

    A key is `(index, draw, epoch)`, as from `ClipSampler`; each draw and each epoch gives another training clip, and
    `index` alone is the first draw of the first epoch. A key gives the same clip whatever the number of workers and the
    order of access.

    Raises:
        VideoError: On access, if a video cannot be decoded, or has no times where `clip.fps` needs them.

    Example:
        >>> clip = ClipConfig(img_size=112)
        >>> cutter = ClipCutter(clip, eval_transform(clip))  # doctest: +SKIP
        >>> ClipDataset(read_videos("videos", "val"), cutter)[0][0].shape  # doctest: +SKIP
        torch.Size([1, 3, 16, 112, 112])
    """

    def __init__(self, videos: VideoList, cutter: ClipCutter) -> None:
        self.videos = videos
        self.cutter = cutter

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: int | tuple[int, int, int]) -> tuple[Tensor, int | Tensor, int]:
        index, draw, epoch = key if isinstance(key, tuple) else (key, 0, 0)
        path, labels = self.videos.path(index), self.videos.labels[index]
        return *self.cutter.cut(path, labels, key=f"{epoch} {index} {draw}"), index


class ClipCutter:
    """Cuts clips from videos: a random one for training, or evenly spaced ones for evaluation.

    Args:
        clip: How to cut a clip.
        transform: Maps uint8 `(T, C, H, W)` to the model's input; see `transforms`.
        num_clips: Clips per video in evaluation.
        num_crops: Crops per clip in evaluation, which the transform makes.
        seed: Seed of training. None cuts for evaluation.
        mirrored: The class that each class becomes when mirrored, from `mirrored_classes`: mirrors half of the training
            clips, but none of a class without a mirror image. None mirrors nothing.

    Raises:
        ValueError: If `num_clips` or `num_crops` is less than 1, or more for training.
    """

    def __init__(
        self,
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
        for name, value in (("num_clips", num_clips), ("num_crops", num_crops)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.clip = clip
        self.transform = transform
        self.num_clips = num_clips
        self.num_crops = num_crops
        self.seed = seed
        self.mirrored = mirrored

    def cut(self, video: Video, labels: np.ndarray, *, key: str) -> tuple[Tensor, int | Tensor]:
        """The clips of a video as `train` or `evaluate` cuts them, and its label.

        Args:
            video: Where to cut.
            labels: The place of its class `()`, or booleans `(num_classes,)` where it may have several classes.
            key: Which clip for training: everything random, including the transform, depends on seed and key alone.

        Returns:
            The clips; and an int, or float32 `(num_classes,)` of zeros and ones.
        """
        if self.seed is None:
            clips = self.evaluate(video)
        else:
            clips, labels = self.train(video, labels, random.Random(f"{self.seed} {key}"))
        return clips, torch.from_numpy(labels).float() if labels.ndim else int(labels)

    def train(self, video: Video, labels: np.ndarray, generator: random.Random) -> tuple[Tensor, np.ndarray]:
        """A random clip as the transform makes it, `(C, T, H, W)`, and its labels, which change if it is mirrored.

        Everything random is drawn from `generator`.

        Raises:
            VideoError: If the video cannot be decoded, or has no times where `clip.fps` needs them.
        """
        reader = open_reader(video)
        indices = clip_of(reader, self.clip, generator=generator)
        short_side = min(round(self.clip.img_size * TRAIN_SHORT_SIDE), *reader.size)  # never enlarged here
        frames = _read(reader, indices, short_side)
        image_labels = mirror_labels(labels, self.mirrored)
        if generator.random() < 0.5 and image_labels is not None:
            frames, labels = frames.flip(-1), image_labels
        with torch_seeded(generator):
            return self.transform(frames), labels

    def evaluate(self, video: Video) -> Tensor:
        """Evenly spaced clips, `(num_clips * num_crops, C, T, H, W)`, the crops of a clip side by side.

        Raises:
            ValueError: If the transform makes another number of crops.
            VideoError: As from `train`.
        """
        reader = open_reader(video)
        clips = [clip_of(reader, self.clip, number=i, num_clips=self.num_clips) for i in range(self.num_clips)]
        frames = _read(reader, list(chain.from_iterable(clips)), self.clip.short_side)
        views = torch.stack([self.transform(clip) for clip in frames.split(self.clip.num_frames)])
        num_crops = views.shape[1] if views.ndim == 6 else 1  # (num_clips, num_crops, C, T, H, W)
        if num_crops != self.num_crops:
            raise ValueError(f"num_crops must be that of the transform, {num_crops}, got {self.num_crops}")
        return views.flatten(0, 1) if views.ndim == 6 else views


def clip_of(
    reader: VideoReader | FolderReader,
    clip: ClipConfig,
    *,
    number: int = 0,
    num_clips: int = 1,
    generator: random.Random | None = None,
) -> list[int]:
    """The frames of a clip: clip `number` of `num_clips` evenly spaced ones, or, with a generator, a random clip.

    Raises:
        VideoError: If the video cannot be decoded, or has no times where `clip.fps` needs them.
    """
    times = None if clip.fps is None else reader.times(complete=True)
    if times is not None and np.isnan(times).any():
        raise VideoError(f"{reader.name}: a folder of pictures has no rate, which fps needs; leave fps out")
    return clip_indices(
        reader.num_frames,
        num_frames=clip.num_frames,
        frame_stride=clip.frame_stride,
        sampling=clip.sampling,
        clip=number,
        num_clips=num_clips,
        generator=generator,
        fps=clip.fps,
        times=times,
    )


def _read(reader: VideoReader | FolderReader, indices: list[int], short_side: int) -> Tensor:
    return torch.from_numpy(reader.images(indices, short_side)).permute(0, 3, 1, 2)  # (T, C, H, W)
