"""A model without weights that tells red from blue, and an evaluation in several processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.clips import ClipCutter
from sifa_zoo.datasets.transforms import eval_transform
from sifa_zoo.datasets.videos import VideoList
from sifa_zoo.evaluation.evaluate import evaluate
from sifa_zoo.runtime.batches import clip_loader

CLIP = ClipConfig(num_frames=4, frame_stride=1, img_size=32)


class Redness(nn.Module):
    """Logits of `num_classes`: how red the clip is for class 1, 0 for the others."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.largest_batch = 0

    def forward(self, clip: Tensor) -> Tensor:
        self.largest_batch = max(self.largest_batch, len(clip))
        logits = clip.new_zeros(len(clip), self.num_classes)
        logits[:, 1] = clip[:, 0].mean((1, 2, 3)) - clip[:, 2].mean((1, 2, 3))
        return logits


def loader_of(videos: VideoList, *, workers: int = 0, num_clips: int = 1, distributed: bool = False) -> Any:
    cutter = ClipCutter(CLIP, eval_transform(CLIP), num_clips=num_clips)
    return clip_loader(videos, cutter, batch_size=2, distributed=distributed, workers=workers)


def evaluate_shard(rank: int, world_size: int, folder: str, videos: VideoList) -> None:
    """Evaluate as one of several processes and write the result to `folder/RANK.json`."""
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world_size)
    try:
        result = evaluate(Redness(), loader_of(videos, distributed=True), device="cpu")
        (Path(folder) / f"{rank}.json").write_text(json.dumps(result))
    finally:
        distributed.destroy_process_group()
