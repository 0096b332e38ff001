"""The same six clips with the same labels, as every format has them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from tiny_videos import write_video

from sifa_zoo.config import ReadConfig
from sifa_zoo.datasets.formats import FORMATS
from sifa_zoo.datasets.reading import read_videos
from sifa_zoo.video.load import load_video

Clips = list[tuple[Path, str]]


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Clips:
    """Videos `0.mp4` to `5.mp4` with their classes."""
    root = tmp_path_factory.mktemp("clips")
    return [
        (write_video(root / f"{i}.mp4", color=(40 * i, 20, 200 - 40 * i), num_frames=4), name)
        for i, name in enumerate(("blue", "red", "blue", "red", "red", "blue"))
    ]


def put(video: Path, path: Path) -> str:
    """A copy of a video; returns its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(video, path)
    return path.name


def folders(root: Path, clips: Clips) -> None:
    for video, name in clips:
        put(video, root / "train" / name / video.name)


def lists(root: Path, clips: Clips) -> None:
    lines = [f"my videos/{put(video, root / 'my videos' / video.name)} {name}\r\n" for video, name in clips]
    (root / "train.txt").write_text("\ufeff" + "".join(lines), newline="")


def lists_with_frames_and_numbers(root: Path, clips: Clips) -> None:
    (root / "classes.txt").write_text("blue\nred\n")
    lines = [f"{put(video, root / video.name)} 4 {('blue', 'red').index(name)}\n" for video, name in clips]
    (root / "train.txt").write_text("".join(lines))


def table(root: Path, clips: Clips) -> None:
    lines = [f'{name};"{put(video, root / video.name)}";x\n' for video, name in clips]
    (root / "train.csv").write_text("Label;Path;Remark\n" + "".join(lines))


def kinetics(root: Path, clips: Clips) -> None:
    lines = ["label,youtube_id,time_start,time_end,split\n"]
    for video, name in clips:
        put(video, root / "train" / name / f"id{video.stem}_000010_000020.mp4")
        lines.append(f"{name},id{video.stem},10,20,train\n")
    (root / "train.csv").write_text("".join(lines))


def something_v1(root: Path, clips: Clips) -> None:
    for video, _ in clips:
        folder = root / "20bn-something-something-v1" / video.stem
        folder.mkdir(parents=True)
        with av.open(str(video)) as container:
            for number, frame in enumerate(container.decode(video=0), 1):
                frame.to_image().save(folder / f"{number:05d}.jpg")
    lines = [f"{video.stem};{name}\n" for video, name in clips]
    (root / "something-something-v1-train.csv").write_text("".join(lines))


def something_v2(root: Path, clips: Clips) -> None:
    entries = [
        {"id": put(video, root / "videos" / video.name).partition(".")[0], "label": "a box", "template": f"[{name}]"}
        for video, name in clips
    ]
    (root / "something-something-v2-train.json").write_text(json.dumps(entries))
    (root / "something-something-v2-labels.json").write_text('{"red": "1", "blue": "0"}')


def ucf101(root: Path, clips: Clips) -> None:
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    lines = []
    for video, name in clips:
        put(video, root / "UCF-101" / name / f"v_{video.name}")
        lines.append(f"{name}/v_{video.stem}.avi {1 + ('blue', 'red').index(name)}\n")
    (lists / "trainlist01.txt").write_text("".join(lines))
    (lists / "classInd.txt").write_text("1 blue\n2 red\n")


def hmdb51(root: Path, clips: Clips) -> None:
    for wanted in ("blue", "red"):
        lines = [f"{put(video, root / name / video.name)} 1 \n" for video, name in clips if name == wanted]
        (root / f"{wanted}_test_split1.txt").write_text("".join(lines))


WRITERS: dict[str, tuple[str, Callable[[Path, Clips], None]]] = {
    "folders": ("folders", folders),
    "list": ("list", lists),
    "list with frames and numbers": ("list", lists_with_frames_and_numbers),
    "csv": ("csv", table),
    "kinetics": ("kinetics", kinetics),
    "something-v1": ("something-v1", something_v1),
    "something-v2": ("something-v2", something_v2),
    "ucf101": ("ucf101", ucf101),
    "hmdb51": ("hmdb51", hmdb51),
}


def test_every_format_is_here():
    assert {name for name, _ in WRITERS.values()} == set(FORMATS)


@pytest.mark.parametrize("case", WRITERS)
def test_clips_and_labels_are_the_same(case, clips, tmp_path):
    name, write = WRITERS[case]
    write(tmp_path, clips)
    videos = read_videos(tmp_path, "train")
    assert videos.class_names == ("blue", "red")
    # by the digit that every format keeps in the name of the file or folder
    found = {"".join(filter(str.isdigit, Path(path).stem))[:1]: row for row, path in enumerate(videos.paths)}
    assert {digit: videos.class_names[videos.labels[row]] for digit, row in found.items()} == {
        video.stem: label for video, label in clips
    }
    for video, _ in (clips[0], clips[5]):
        path = videos.path(found[video.stem])
        if path.is_dir():
            assert len(os.listdir(path)) == 4
        else:
            np.testing.assert_array_equal(load_video(path), load_video(video))
    assert read_videos(tmp_path, "train", how=ReadConfig(format=name)).paths.tolist() == videos.paths.tolist()
    other = read_videos(tmp_path, "train", ("red", "green", "blue"))
    assert other.labels.tolist() == [2 - 2 * label for label in videos.labels]
