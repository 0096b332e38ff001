from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.clip_dataset import ClipDataset
from sifa_zoo.datasets.clip_sampler import ClipSampler
from sifa_zoo.datasets.transforms import eval_transform, train_transform
from sifa_zoo.datasets.videos import VideoList
from sifa_zoo.runtime import batches as module
from sifa_zoo.runtime.batches import ClipLoader, clip_loader, leave_signals_to_parent

CLIP = ClipConfig(num_frames=4, frame_stride=1, img_size=32)


def _videos(data: Path, *, several: bool = False) -> VideoList:
    paths = sorted((data / "train").rglob("*.mp4"))[:5]
    labels = np.arange(10).reshape(5, 2) % 3 == 0 if several else np.arange(5) % 2
    return VideoList(paths, labels, ("blue", "red"))


def test_training_batches_follow_the_sampler_and_leave_out_a_lone_clip(data: Path) -> None:
    videos = _videos(data)
    dataset = ClipDataset(videos, CLIP, train_transform(CLIP), seed=0)
    sampler = ClipSampler(videos, seed=0)
    batches = list(clip_loader(dataset, batch_size=2, sampler=sampler))
    assert torch.cat([batch.indices for batch in batches]).tolist() == [index for index, _ in sampler][:4]
    assert len(list(clip_loader(dataset, batch_size=3, sampler=sampler))) == 2


def test_evaluation_takes_all_in_order(data: Path) -> None:
    dataset = ClipDataset(_videos(data), CLIP, eval_transform(CLIP, 3), num_crops=3)
    batches = list(clip_loader(dataset, batch_size=2))
    assert [batch.indices.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
    assert batches[0].clips.shape == (2, 3, 3, 4, 32, 32)
    assert batches[0].labels.dtype == torch.int64


def test_several_labels(data: Path) -> None:
    videos = _videos(data, several=True)
    batch = next(iter(clip_loader(ClipDataset(videos, CLIP, eval_transform(CLIP)), batch_size=5)))
    assert batch.labels.dtype == torch.float32
    assert batch.labels.tolist() == videos.labels.astype(float).tolist()


def test_processes_share_the_videos(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = ClipDataset(_videos(data), CLIP, eval_transform(CLIP))
    monkeypatch.setattr(module, "world_size", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(module, "rank", lambda rank=rank: rank)
        batches = list(clip_loader(dataset, batch_size=2, distributed=True))
        shares.append([index for batch in batches for index in batch.indices.tolist()])
    assert shares == [[0, 2, 4], [1, 3]]
    assert len(next(iter(clip_loader(dataset, batch_size=5))).labels) == 5  # all of them, unless asked to share


def _note_blocked(folder: Path, worker: int) -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    (folder / f"{worker}.txt").write_text(" ".join(sorted(signal.Signals(number).name for number in blocked)))


def test_signals_wait_until_workers_leave_them_to_the_parent(tmp_path: Path) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    loader = ClipLoader(torch.arange(4), workers=2, device="cpu")
    loader.worker_init_fn = partial(_note_blocked, tmp_path)
    assert len(list(loader)) == 4
    assert [(tmp_path / f"{worker}.txt").read_text() for worker in range(2)] == ["SIGINT SIGTERM"] * 2
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_workers_get_their_signals_in_the_end() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    try:
        leave_signals_to_parent(0)
        assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
