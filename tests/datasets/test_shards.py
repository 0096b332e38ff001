from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest
import torch
import webdataset
from tiny_videos import write_video
from torch.utils.data import DataLoader

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.clips import ClipCutter, ClipDataset
from sifa_zoo.datasets.reading import read_videos, read_videos_or_shards
from sifa_zoo.datasets.shard_list import ShardList, count_samples, find_shards
from sifa_zoo.datasets.shards import ShardDataset, UnlabelledError
from sifa_zoo.datasets.transforms import eval_transform
from sifa_zoo.datasets.videos import DataError, VideoList
from sifa_zoo.video.load import VideoError

CLIP = ClipConfig(num_frames=4, frame_stride=1, img_size=32)
NUM_SHARDS, PER_SHARD = 5, 3


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("videos")
    return [write_video(root / f"{i}.mp4", color=(17 * i % 256, 100, 0), num_frames=6) for i in range(15)]


def write_shard(path: Path, *samples: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path)) as writer:
        for number, sample in enumerate(samples):
            writer.write({"__key__": f"v/{number}", **sample})
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory, videos) -> Path:
    """Five shards of three videos; labels in turn as a number, a name and JSON."""
    root = tmp_path_factory.mktemp("shards")
    for shard in range(NUM_SHARDS):
        data = [path.read_bytes() for path in videos[PER_SHARD * shard : PER_SHARD * (shard + 1)]]
        labels = ({"cls": "1"}, {"txt": "jump"}, {"json": {"label": "run", "more": 1}})
        samples = ({"mp4": video, **label} for video, label in zip(data, labels, strict=True))
        write_shard(root / f"train-{shard}.tar", *samples)
    (root / "classes.txt").write_text("jump\nrun\n")
    return root


def dataset(shards, class_names=None, *, remap=None, **settings) -> ShardDataset:
    return ShardDataset(ShardList(shards, class_names, remap=remap), ClipCutter(CLIP, eval_transform(CLIP), **settings))


def first(items):
    return items[0]


def load(shards, *, workers: int = 0, **settings) -> list:
    return list(DataLoader(dataset(shards, **settings), batch_size=1, num_workers=workers, collate_fn=first))


def test_samples_are_those_of_the_files(folder, videos):
    found = load(folder)
    expected = ClipDataset(
        VideoList(videos, [1, 0, 1] * NUM_SHARDS, ("jump", "run")), ClipCutter(CLIP, eval_transform(CLIP))
    )
    assert len(found) == len(expected) == len(dataset(folder))
    for (clips, label, index), (wanted, wanted_label, place) in zip(found, expected, strict=True):
        torch.testing.assert_close(clips, wanted, rtol=0, atol=0)
        assert (label, index) == (wanted_label, place // PER_SHARD << 32 | place % PER_SHARD)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("seed", [None, 0])
def test_workers_give_each_sample_once(folder, workers, seed):
    indices = [index for _, _, index in load(folder, workers=workers, seed=seed)]
    assert sorted(indices) == [shard << 32 | i for shard in range(NUM_SHARDS) for i in range(PER_SHARD)]


@pytest.mark.parametrize("workers", [0, 2])
def test_nodes_give_each_sample_once(folder, workers, monkeypatch):
    found = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        part = [index for _, _, index in load(folder, workers=workers, seed=3)]
        assert PER_SHARD <= len(part) < NUM_SHARDS * PER_SHARD
        found += part
    assert len(found) == len(set(found)) == NUM_SHARDS * PER_SHARD


def test_training_depends_on_seed_and_epoch(folder):
    def epoch(seed: int, number: int) -> list[tuple[int, float]]:
        shards = dataset(folder, seed=seed)
        shards.set_epoch(number)
        return [(index, clip.sum().item()) for clip, _, index in shards]

    assert epoch(0, 0) == epoch(0, 0)
    orders = [[index for index, _ in epoch(*key)] for key in ((0, 0), (0, 1), (1, 0))]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert dict(epoch(0, 0)) != dict(epoch(0, 1))  # other clips of the same videos
    assert orders[0] != sorted(orders[0])


def test_labels_follow_given_class_names(folder):
    names = ("run", "walk", "jump")
    assert [label for _, label, _ in load(folder, class_names=names)][:3] == [0, 2, 0]


def test_fsspec_urls(folder):
    files = fsspec.filesystem("memory")
    for path in folder.iterdir():
        files.pipe_file(f"/far/train/{path.name}", path.read_bytes())
    url = f"memory://far/train/train-{{0..{NUM_SHARDS - 1}}}.tar"
    shards = dataset(url)
    assert shards.videos.class_names == ("jump", "run")
    for (clips, label, index), (wanted, wanted_label, place) in zip(shards, load(folder), strict=True):
        torch.testing.assert_close(clips, wanted, rtol=0, atol=0)
        assert (label, index) == (wanted_label, place)
    with pytest.raises(DataError, match=r"memory://far/train have\? Put a sizes.json .*\"train-0.tar\": 1000"):
        len(shards)
    assert len(find_shards("memory://far", "train")) == NUM_SHARDS
    assert load(find_shards("memory://far", "train"))[0][2] == 0
    files.pipe_file("/far/train/sizes.json", json.dumps({f"train-{i}.tar": 3 for i in range(NUM_SHARDS)}).encode())
    assert len(dataset(url)) == 15
    files.rm("/far/train/sizes.json")
    files.pipe_file("/far/train/__len__", b"15\n")
    assert len(dataset(url)) == 15
    with pytest.raises(DataError, match="cannot read the shard memory://far/train/train-9.tar: no such file"):
        load("memory://far/train/train-{4,9}.tar")


def test_folders_with_splits(tmp_path, videos):
    sample = {"mp4": videos[0].read_bytes(), "cls": "0"}
    train, val = write_shard(tmp_path / "train/a.tar", sample, sample), write_shard(tmp_path / "test/b.tar", sample)
    (tmp_path / "classes.txt").write_text("jump\n")
    assert find_shards(tmp_path, "train") == [str(train)]
    assert find_shards(tmp_path, "val") == [str(val)]
    assert (len(load(train)), count_samples([str(train), str(val)])) == (2, 3)
    with pytest.raises(DataError, match="no shards .* in .*; where it has splits, name one"):
        find_shards(tmp_path)
    with pytest.raises(DataError, match="holds shards, which are a stream, not a list of videos"):
        read_videos(tmp_path, "train")


@pytest.mark.parametrize("val", ["val", "validation", "validate", "test"])
def test_validation_shards_by_any_name(tmp_path, videos, val):
    shard = write_shard(tmp_path / val / "a.tar", {"mp4": videos[0].read_bytes(), "cls": "0"})
    (tmp_path / "classes.txt").write_text("jump\n")
    found = read_videos_or_shards(tmp_path, "val")
    assert isinstance(found, ShardList)
    assert (found.shards, found.class_names) == ([str(shard)], ("jump",))


def test_shards_that_cannot_be_found(tmp_path, folder):
    with pytest.raises(DataError, match=r"1 of 2 shards do not exist, such as .*train-8.tar"):
        dataset(f"{folder}/train-{{0,8}}.tar")
    with pytest.raises(ValueError, match="shards cannot come from a command, got 'pipe:curl"):
        dataset("pipe:curl -s http://far/train-{0..9}.tar")
    with pytest.raises(DataError, match="no shards .* in .*, nor in its folder val"):
        find_shards(tmp_path, "val")
    (tmp_path / "a.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(DataError, match="cannot read the shard .*a.tar"):
        load(tmp_path, class_names=("run",))
    with pytest.raises(DataError, match="cannot read the shard .*a.tar"):
        count_samples([str(tmp_path / "a.tar")])
    with pytest.raises(DataError, match="has no classes.txt beside it; add it, or give the class names"):
        dataset(tmp_path)
    with pytest.raises(ValueError, match="num_clips must be at least 1"):
        dataset(folder, num_clips=0)


@pytest.mark.parametrize(
    ("sample", "error", "message"),
    [
        ({"cls": "0"}, VideoError, r"expected one video, got 0 \(cls\)"),
        ({"avi": b"", "mp4": b"", "cls": "0"}, VideoError, "expected one video, got 2 .*; keys end at the first dot"),
        ({"mp4": b"no video" * 9, "cls": "0"}, VideoError, "not a video that FFmpeg can open"),
        ({"mp4": b""}, UnlabelledError, "no label; expected one of cls, txt, json beside the video"),
        ({"mp4": b"", "json": {"class": 1}}, UnlabelledError, "expected a label in json, got"),
        ({"mp4": b"", "txt": " \n"}, UnlabelledError, "the label in txt is empty"),
        ({"mp4": b"", "cls": "2"}, DataError, r"label 2 is not in .*classes.txt \(0 to 1\)"),
        ({"mp4": b"", "txt": "swim"}, DataError, "label swim is not in .*classes.txt"),
    ],
)
def test_samples_that_cannot_be_used_are_named(tmp_path, sample, error, message):
    shard = write_shard(tmp_path / "a.tar", sample)
    (tmp_path / "classes.txt").write_text("jump\nrun\n")
    with pytest.raises(error, match=f"{shard}, sample v/0: {message}"):
        load(shard)


def test_numbers_need_names(tmp_path, videos):
    shard = write_shard(tmp_path / "a.tar", {"mp4": videos[0].read_bytes(), "cls": "1"})
    with pytest.raises(DataError, match=r"sample v/0 are numbers \(1\), but the classes are names"):
        load(shard, class_names=("jump", "run"))
    assert load(shard, class_names=("jump", "run"), remap="index")[0][1] == 1
