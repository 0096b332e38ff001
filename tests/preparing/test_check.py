from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.videos import VideoList
from sifa_zoo.preparing.check import check_duplicates, check_files, check_labels, check_splits, find_undecodable
from sifa_zoo.preparing.findings import Finding, finding_lines, finding_table, findings_csv
from sifa_zoo.video.cache import forget_memory

CLIP = ClipConfig(num_frames=4, frame_stride=4, img_size=32)  # spans 13 frames


def kinds(path: Path, *, quick: bool = False, clip: ClipConfig = CLIP) -> dict[str, str]:
    return {f.kind: f.detail for f in check_files([str(path)], "train", clip=clip, workers=1, quick=quick)}


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", ["long_gop", "mpeg4_b_frames", "transport_stream", "gif", "raw", "late_start"])
def test_nothing_is_found_in_a_sound_video(videos, name, quick):
    assert kinds(videos[name], quick=quick) == {}


@pytest.mark.parametrize(
    ("name", "kind", "detail"),
    [
        ("damaged", "damaged", "of 40 frames are made of damaged data"),
        ("truncated", "cut off", "of 40 frames are there"),
        ("one_frame", "short", "1 frames, a clip spans 13: frames are repeated"),
        ("uneven_times", "variable rate", "--fps samples by time"),
        ("rotated", "rotated", "90 degrees; read upright"),
    ],
)
def test_what_is_odd_is_said_and_stops_nothing(videos, name, kind, detail):
    found = kinds(videos[name])
    assert detail in found[kind]
    assert not Finding("train", "", kind, "").fatal


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty", "the file is empty"),
        ("text", "not a video"),
        ("audio", "the file holds only audio"),
        ("without_index", "truncated"),
        ("without_frames", "damaged"),
    ],
)
@pytest.mark.parametrize("quick", [False, True])
def test_what_cannot_be_decoded_stops_training(not_videos, name, reason, quick):
    found = kinds(not_videos[name], quick=quick)
    assert list(found) == ["undecodable"]
    assert reason in found["undecodable"]
    assert "\n" not in found["undecodable"]
    assert Finding("train", "", "undecodable", "").fatal


def test_a_quick_check_does_not_decode_the_rest(videos, monkeypatch):
    monkeypatch.setattr("sifa_zoo.preparing.inspection._decode_all", None)
    assert kinds(videos["long_gop"], quick=True) == {}


def test_what_is_short_depends_on_the_clip(videos):
    assert kinds(videos["long_gop"], clip=ClipConfig(num_frames=40, frame_stride=2))["short"].startswith("40 frames, a")
    assert kinds(videos["long_gop"], clip=ClipConfig(num_frames=40, sampling="uniform")) == {}
    by_time = ClipConfig(num_frames=4, frame_stride=4, fps=5)  # 2.4 seconds
    assert kinds(videos["long_gop"], clip=by_time)["short"].startswith("1.60 seconds, a clip spans 2.40")


def test_labels():
    videos = VideoList(["a"] * 21, [0] * 20 + [1], ["run", "jump", "fall"])
    assert [str(finding) for finding in check_labels(videos, "train")] == [
        "labels: 1 class has no video: fall",
        "labels: 1 class has less than 1/10 of the 20 videos of another: jump (1)",
    ]


def test_many_classes_are_named_in_one_short_line():
    videos = VideoList(["a"] * 22, [3] * 20 + [7, 8], [*map(str, range(2006))])
    assert [str(finding) for finding in check_labels(videos, "train")] == [
        "labels: 2,003 classes have no video: 0, 1, 2, ...",
        "labels: 2 classes have less than 1/10 of the 20 videos of another: 7 (1), 8 (1)",
    ]


def test_classes_that_differ_in_case_only():
    videos = VideoList(["a"] * 3, [0, 1, 2], ["Wave", "jump", "wave"])
    assert [f.detail for f in check_labels(videos, "train")] == ["the classes Wave and wave differ in case only"]


def test_a_file_is_checked_once_however_often_it_is_listed(videos, tmp_path):
    (tmp_path / "link").symlink_to(videos["rotated"].parent)
    same = [videos["rotated"], tmp_path / "link" / videos["rotated"].name]
    train = VideoList([*same, *same], [0, 1, 0, 1], ["run", "jump"], missing=["gone.mp4", "gone.mp4", "c\\b.mp4"])
    found = list(check_splits({"train": train, "val": train}, clip=CLIP, workers=2))
    assert [(f.path, f.split) for f in found if f.kind == "rotated"] == [(str(same[0]), "train")]
    lines = finding_lines(found, most=50)
    assert [line.partition(":")[0] for line in lines] == ["gone.mp4", "c\\b.mp4", str(same[0]), str(same[1])]
    assert lines[1] == "c\\b.mp4: missing: no such file; folders are separated by /, not by \\"


def test_one_class_stops_training():
    videos = VideoList(["a"] * 2, [0, 0], ["run", "jump"])
    (finding,) = check_labels(videos, "train")
    assert finding.fatal
    assert "at least two classes, got 1: run" in finding.detail
    assert [finding.kind for finding in check_labels(videos, "val")] == ["labels"]  # training does not need more


def test_a_line_for_each_video_and_a_table():
    findings = [Finding("train", f"{i}.mp4", "short", "1 frame") for i in range(3)]
    findings += [Finding("train", "1.mp4", "rotated", "by 90"), Finding("val", "z.mp4", "undecodable", "empty")]
    assert finding_lines(findings, most=3) == [
        "z.mp4: undecodable: empty",
        "0.mp4: short: 1 frame",
        "1.mp4: short: 1 frame; rotated: by 90",
        "... and 1 more; --csv FILE writes them all",
    ]
    table = finding_table(findings)
    assert [line.split() for line in table if line.startswith(("short", "undecodable", "missing"))] == [
        ["missing", "0", "yes"],
        ["undecodable", "1", "yes"],
        ["short", "3", "no"],
    ]


def test_the_same_bytes_in_two_splits(videos, tmp_path):
    for name in ("a", "b", "c"):
        shutil.copy(videos["short_gop"], tmp_path / f"{name}.mkv")
    shutil.copy(videos["long_gop"], tmp_path / "d.mkv")
    train = VideoList([tmp_path / "a.mkv", tmp_path / "b.mkv"], [0, 0], ["run"])
    val = VideoList([tmp_path / "c.mkv", tmp_path / "d.mkv"], [0, 0], ["run"])
    (finding,) = check_duplicates({"train": train, "val": val}, workers=2)
    assert (finding.split, finding.path) == ("val", str(tmp_path / "c.mkv"))
    assert finding.detail == f"the same bytes as {tmp_path / 'a.mkv'} in train"
    assert check_duplicates({"train": train}, workers=2) == []


def test_all_findings_of_a_data_set_as_csv(videos, not_videos, tmp_path):
    train = VideoList([videos["rotated"], not_videos["text"]], [0, 1], ["run", "jump"], missing=["gone.mp4"])
    val = VideoList([videos["rotated"]], [0], ["run", "jump"])
    found = list(check_splits({"train": train, "val": val}, clip=CLIP, workers=2))
    (tmp_path / "findings.csv").write_bytes(findings_csv(found))
    rows = list(csv.DictReader((tmp_path / "findings.csv").open()))
    assert [(row["split"], row["kind"], row["stops_training"]) for row in rows if row["kind"] != "rotated"] == [
        ("train", "missing", "yes"),
        ("val", "labels", "no"),
        ("train", "undecodable", "yes"),
        ("val", "duplicate", "no"),
    ]
    assert {row["path"] for row in rows} == {"", "gone.mp4", str(videos["rotated"]), str(not_videos["text"])}


def test_no_findings_as_csv():
    assert findings_csv([]) == b"split,path,kind,detail,stops_training\n"


@pytest.mark.parametrize("workers", [0, 2])
def test_undecodable_videos_are_named_in_order(videos, not_videos, workers):
    paths = (videos["short_gop"], not_videos["text"], videos["gif"], not_videos["empty"])
    assert list(find_undecodable(VideoList(paths, (0,) * 4, ("run",)), workers=workers).values()) == [
        f"{not_videos['text']}: not a video that FFmpeg can open",
        f"{not_videos['empty']}: the file is empty",
    ]


def test_videos_with_a_known_index_are_not_opened_again(videos, tmp_path, monkeypatch):
    monkeypatch.setenv("SIFA_ZOO_CACHE", str(tmp_path))
    monkeypatch.delenv("SIFA_ZOO_INDEX")
    forget_memory()
    listed = VideoList([videos["short_gop"]], [0], ["run"])
    assert find_undecodable(listed, workers=1) == {}
    monkeypatch.setattr("sifa_zoo.preparing.check.load_video", None)
    assert find_undecodable(listed, workers=1) == {}
