from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.clip_sampler import ClipSampler
from sifa_zoo.datasets.clips import ClipCutter
from sifa_zoo.datasets.shard_list import ShardList
from sifa_zoo.datasets.transforms import eval_transform, train_transform
from sifa_zoo.datasets.videos import VideoList
from sifa_zoo.runtime import batches as module
from sifa_zoo.runtime.batches import ClipLoader, clip_loader, leave_signals_to_parent

CLIP = ClipConfig(num_frames=4, frame_stride=1, img_size=32)
TRAIN, EVAL = ClipCutter(CLIP, train_transform(CLIP), seed=0), ClipCutter(CLIP, eval_transform(CLIP))


@pytest.fixture
def videos(data: Path) -> VideoList:
    return VideoList(sorted((data / "train").rglob("*.mp4"))[:5], np.arange(5) % 2, ("blue", "red"))


def indices(loader: ClipLoader) -> list[list[int]]:
    return [batch.indices.tolist() for batch in loader]


def test_training_batches_follow_the_sampler_and_leave_out_a_lone_clip(videos: VideoList) -> None:
    sampler = ClipSampler(videos, seed=0)
    first, second = indices(clip_loader(videos, TRAIN, batch_size=2, sampler=sampler))
    assert first + second == [index for index, _, _ in sampler][:4]
    assert len(list(clip_loader(videos, TRAIN, batch_size=3, sampler=sampler))) == 2


def test_an_epoch_goes_on_at_any_batch(videos: VideoList) -> None:
    loader = clip_loader(videos, TRAIN, batch_size=2, sampler=ClipSampler(videos, seed=0, repeats=2))
    assert (loader.videos, loader.num_clips, len(loader)) == (videos, 10, 5)
    loader.set_epoch(1)
    whole = list(loader)
    for start in (1, 4, 5):
        loader.set_epoch(1, start=start)
        rest = list(loader)
        assert [batch.names for batch in rest] == [batch.names for batch in whole[start:]]
        assert all(torch.equal(one.clips, other.clips) for one, other in zip(rest, whole[start:], strict=True))
    loader.set_epoch(0)
    assert [batch.names for batch in loader] != [batch.names for batch in whole]


def test_evaluation_takes_all_in_order(videos: VideoList) -> None:
    batches = list(clip_loader(videos, ClipCutter(CLIP, eval_transform(CLIP, 3), num_crops=3), batch_size=2))
    assert [batch.indices.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
    assert batches[0].clips.shape == (2, 3, 3, 4, 32, 32)
    assert batches[0].labels.dtype == torch.int64


def test_several_labels(videos: VideoList) -> None:
    several = VideoList(videos.paths, np.arange(10).reshape(5, 2) % 3 == 0, videos.class_names)
    batch = next(iter(clip_loader(several, EVAL, batch_size=5)))
    assert batch.labels.dtype == torch.float32
    assert batch.labels.tolist() == several.labels.astype(float).tolist()


def test_processes_share_the_videos(videos: VideoList, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "world_size", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(module, "rank", lambda rank=rank: rank)
        shares.append(indices(clip_loader(videos, EVAL, batch_size=2, distributed=True)))
    assert shares == [[[0, 2], [4]], [[1, 3]]]
    assert indices(clip_loader(videos, EVAL, batch_size=5)) == [[0, 1, 2, 3, 4]]  # all of them, unless asked to share


@pytest.mark.parametrize("workers", [0, 1])
def test_a_video_that_cannot_be_decoded_is_a_line_of_text(tmp_path: Path, videos: VideoList, workers: int) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video" * 9)
    listed = VideoList([videos.paths[0], bad, videos.paths[1]], [0, 1, 0], videos.class_names)
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        for key, path in enumerate(listed.paths):
            writer.write({"__key__": f"v/{key}", "mp4": Path(path).read_bytes(), "txt": "blue"})
    for source, name in ((listed, str(bad)), (ShardList(tmp_path / "a.tar", ("blue", "red")), "sample v/1")):
        one, other, last = clip_loader(source, EVAL, batch_size=1, workers=workers)
        assert (one.failed, other.names, len(other.labels), last.failed) == ((), (), 0, ())
        assert f"{name}: not a video" in other.failed[0]
        assert (last.labels.tolist(), last.indices.tolist()) == ([0], [2])


def _note_blocked(folder: Path, worker: int) -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    (folder / f"{worker}.txt").write_text(" ".join(sorted(signal.Signals(number).name for number in blocked)))


def test_signals_wait_until_workers_leave_them_to_the_parent(tmp_path: Path) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    loader = ClipLoader(torch.arange(4), num_workers=2, worker_init_fn=partial(_note_blocked, tmp_path))
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
