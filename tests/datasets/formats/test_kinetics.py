from __future__ import annotations

import pytest

from sifa_zoo.config import ReadConfig
from sifa_zoo.datasets.reading import read_videos

HEADER = "label,youtube_id,time_start,time_end,split\n"


@pytest.mark.parametrize(
    "video",
    [
        "ab-_1_000010_000020.mp4",
        "videos/ab-_1_000010_000020.MKV",
        "train/ab-_1_000010_000020.mp4",
        "train/high jump/ab-_1_000010_000020.webm",
        "train/high_jump/ab-_1.mp4",
        "frames/ab-_1_000010_000020/",
    ],
)
@pytest.mark.parametrize("csv", ["train.csv", "kinetics-400_train.csv", "annotations/train.csv"])
def test_videos_are_found_by_name(disk, rows, video, csv):
    disk.touch(video, "train/other_000001_000002.mp4")
    disk.write(csv, HEADER + '"high jump",ab-_1,10,20,train\nrun,other,1.0,2.0,train\n')
    for data in (disk.root, disk.root / csv):
        videos = read_videos(data, "train")
        assert rows(videos) == [(video.rstrip("/"), "high jump"), ("train/other_000001_000002.mp4", "run")]
        assert videos.format == "Kinetics CSV"


def test_trimmed_comes_before_whole_and_the_own_split_before_others(disk, rows):
    disk.touch("a/x.mp4", "z/x_000001_000002.mp4", "train/y_000001_000002.mp4", "val/y_000001_000002.mp4")
    disk.write("val.csv", HEADER + "run,x,1,2,val\nrun,y,1,2,val\n")
    assert [path for path, _ in rows(read_videos(disk.root, "val"))] == [
        "z/x_000001_000002.mp4",
        "val/y_000001_000002.mp4",
    ]


def test_missing_videos_are_usual(disk, rows, capsys):
    disk.touch("x_000001_000002.mp4")
    disk.write("train.csv", HEADER + "run,x,1,2,train\njump,gone,3,4,train\n")
    disk.refuses("1 of 2 videos .* line 3: gone_000003_000004; --allow-missing leaves them out", disk.root, "train")
    videos = read_videos(disk.root, "train", how=ReadConfig(allow_missing=True))
    assert (rows(videos), videos.num_missing) == ([("x_000001_000002.mp4", "run")], 1)
    assert videos.class_names == ("jump", "run")  # as with all videos there
    assert "1 of 2 videos" in capsys.readouterr().err


def test_one_file_for_all_splits(disk, rows):
    disk.touch("x_000001_000002.mp4", "y_000001_000002.mp4")
    file = disk.write("all.csv", HEADER + "run,x,1,2,train\njump,y,1,2,validate\n")
    assert rows(read_videos(file, "val")) == [("y_000001_000002.mp4", "jump")]


def test_lines_that_cannot_be_used_are_named(disk):
    disk.write("train.csv", HEADER + "run,x,a,2,train\n,x,1,2,train\nrun,,1,2,train\n")
    faults = ["line 2: expected an id and times in seconds, got x, a, 2", "line 3: the label", "line 4: expected"]
    disk.refuses(faults, disk.root, "train")
    disk.write("train.csv", "youtube_id,time_start,time_end\nx,1,2\n")
    disk.refuses("has no column label; its columns are youtube_id, time_start, time_end", disk.root, "train")
