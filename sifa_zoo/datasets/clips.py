"""From a video to the model's input: frames chosen, decoded, mirrored and transformed."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.mirror import mirror_labels
from sifa_zoo.datasets.sampling import clip_indices
from sifa_zoo.datasets.transforms import torch_seeded
from sifa_zoo.video.load import VideoError
from sifa_zoo.video.reader import FolderReader, Video, VideoReader, open_reader

# Training decodes frames a little larger than the model's input, so that random crops differ.
TRAIN_SHORT_SIDE = 1.15


class ClipCutter:
    """Cuts clips from videos.

    Args:
        clip: How to cut a clip.
        transform: Maps uint8 `(T, C, H, W)` to the model's input; see `transforms`.
        num_clips: Clips per video in evaluation.
        num_crops: Crops per clip in evaluation, which the transform makes.
        mirrored: The class that each class becomes when mirrored, from `mirrored_classes`: mirrors half of the training
            clips, but none of a class without a mirror image. None mirrors nothing.

    Raises:
        ValueError: If `num_clips` or `num_crops` is less than 1.
    """

    def __init__(
        self,
        clip: ClipConfig,
        transform: Callable[[Tensor], Tensor],
        *,
        num_clips: int = 1,
        num_crops: int = 1,
        mirrored: np.ndarray | None = None,
    ) -> None:
        for name, value in (("num_clips", num_clips), ("num_crops", num_crops)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.clip = clip
        self.transform = transform
        self.num_clips = num_clips
        self.num_crops = num_crops
        self.mirrored = mirrored

    def train(self, video: Video, labels: np.ndarray, generator: random.Random) -> tuple[Tensor, np.ndarray]:
        """A random clip, float32 `(C, T, H, W)`, and its labels, which change if it is mirrored.

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
        """Evenly spaced clips, float32 `(num_clips * num_crops, C, T, H, W)`, the crops of a clip side by side.

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
