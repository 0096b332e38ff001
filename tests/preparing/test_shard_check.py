from __future__ import annotations

from pathlib import Path

import pytest
import webdataset
from tiny_videos import write_video

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.shard_list import ShardList
from sifa_zoo.preparing.shard_check import check_shards

CLIP = ClipConfig(num_frames=4, frame_stride=1, img_size=32)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[bytes]:
    root = tmp_path_factory.mktemp("clips")
    return [write_video(root / f"{i}.mp4", color=(40 * i, 100, 0), num_frames=6).read_bytes() for i in range(5)]


def shards(folder: Path, *samples: dict, classes: str = "jump\nrun\n") -> ShardList:
    folder.mkdir()
    with webdataset.TarWriter(str(folder / "a.tar")) as writer:
        for number, sample in enumerate(samples):
            writer.write({"__key__": f"{number}", **sample})
    (folder / "classes.txt").write_text(classes)
    return ShardList(folder)


def found(**splits: ShardList) -> list[tuple[str, str, str, str]]:
    findings = check_shards(splits, clip=CLIP, workers=2)
    return [(f.split, f.path.rpartition("/")[2], f.kind, f.detail) for f in findings]


def test_nothing_is_found_in_sound_shards(clips, tmp_path):
    train = shards(tmp_path / "train", {"mp4": clips[0], "cls": "0"}, {"mp4": clips[1], "txt": "run"})
    val = shards(tmp_path / "val", {"mp4": clips[2], "json": {"label": "jump"}}, {"mp4": clips[3], "cls": "1"})
    assert found(train=train, val=val) == []


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ({"mp4": b"no video" * 9, "cls": "0"}, {"undecodable": "not a video that FFmpeg can open"}),
        ({"cls": "0"}, {"undecodable": "expected one video, got 0 (cls)"}),
        ({"mp4": ...}, {"unlabelled": "no label; expected one of cls, txt, json beside the video"}),
        ({"mp4": ..., "txt": " \n"}, {"unlabelled": "the label in txt is empty"}),
        ({"mp4": ..., "txt": "swim"}, {"unknown label": "label swim is not in "}),
        ({"mp4": b"no video" * 9}, {"undecodable": "not a video that", "unlabelled": "no label"}),
    ],
)
def test_a_bad_sample(clips, tmp_path, sample, expected):
    sample = {name: clips[2] if content is ... else content for name, content in sample.items()}
    train = shards(tmp_path / "train", {"mp4": clips[0], "cls": "0"}, {"mp4": clips[1], "cls": "1"}, sample)
    said = {kind: (place, detail) for _, place, kind, detail in found(train=train) if kind != "labels"}
    assert list(said) == list(expected)
    for kind, detail in expected.items():
        assert said[kind][0] == "a.tar, sample 2"
        assert said[kind][1].startswith(detail)


def test_labels_and_duplicates(clips, tmp_path):
    classes = "Run\nrun\njump\nfall\n"
    train = shards(tmp_path / "train", {"mp4": clips[0], "cls": "0"}, {"mp4": clips[1], "cls": "2"}, classes=classes)
    val = shards(tmp_path / "val", {"mp4": clips[1], "cls": "2"}, classes=classes)
    assert found(train=train, val=val) == [
        ("train", "", "labels", "the classes Run and run differ in case only"),
        ("train", "", "labels", "2 classes have no video: run, fall"),
        ("val", "a.tar, sample 0", "duplicate", f"the same bytes as {tmp_path}/train/a.tar, sample 1 in train"),
        ("val", "", "labels", "the classes Run and run differ in case only"),
        ("val", "", "labels", "3 classes have no video: Run, run, fall"),
    ]


def test_one_class_stops_training(clips, tmp_path):
    train = shards(tmp_path / "train", {"mp4": clips[0], "cls": "0"})
    assert found(train=train) == [("train", "", "classes", "training needs videos of at least two classes, got jump")]


def test_a_shard_that_cannot_be_read(clips, tmp_path):
    shards(tmp_path / "train", {"mp4": clips[0], "cls": "0"}, {"mp4": clips[1], "cls": "1"})
    (tmp_path / "train" / "b.tar").write_bytes(b"no archive" * 100)
    ((_, place, kind, detail),) = found(train=ShardList(tmp_path / "train"))
    assert (place, kind) == ("b.tar", "undecodable")
    assert detail.startswith("cannot read the shard ")
