from __future__ import annotations

import csv
import os
import shutil
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import unusual_display as unusual

from sifa_zoo.config import ResizeConfig
from sifa_zoo.datasets.formats.table import write_table
from sifa_zoo.datasets.reading import read_splits, read_videos
from sifa_zoo.datasets.videos import DataError, VideoList
from sifa_zoo.preparing import resize
from sifa_zoo.preparing.parallel_map import Stopped
from sifa_zoo.preparing.resize import resize_video, resize_videos
from sifa_zoo.video.load import VideoError, frame_times, load_video, video_info

SMALL = ResizeConfig(short_side=32, crf=10, gop_size=8)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Of brightness: colours are coarser in H.264."""
    return 10 * np.log10(255**2 / np.mean((first.mean(-1) - second.mean(-1)) ** 2))


@pytest.mark.parametrize(
    "name",
    [
        "long_gop",
        "mpeg4_b_frames",
        "transport_stream",
        "raw",
        "gif",
        "uneven_times",
        "rotated",
        "one_frame",
        "one_raw_frame",
    ],
)
def test_a_copy_has_the_same_frames_smaller(videos, tmp_path, name):
    resize_video(videos[name], tmp_path / "copy.mp4", SMALL)
    frames, expected = load_video(tmp_path / "copy.mp4"), load_video(videos[name], short_side=32)
    assert len(frames) == len(expected)
    assert abs(frames.shape[1] - expected.shape[1]) <= 1  # even
    assert abs(frames.shape[2] - expected.shape[2]) <= 1
    height, width = min(frames.shape[1], expected.shape[1]), min(frames.shape[2], expected.shape[2])
    assert psnr(frames[:, :height, :width], expected[:, :height, :width]) > 24
    assert [path.name for path in tmp_path.iterdir()] == ["copy.mp4"]


@pytest.mark.parametrize("name", ["long_gop", "uneven_times", "late_start"])
def test_a_copy_keeps_the_times(videos, tmp_path, name):
    resize_video(videos[name], tmp_path / "copy.mp4", SMALL)
    np.testing.assert_allclose(frame_times(tmp_path / "copy.mp4"), frame_times(videos[name]), atol=1e-4)


def test_frames_without_rising_times_follow_the_rate(videos, tmp_path):
    resize_video(videos["mpeg4_b_frames"], tmp_path / "copy.mp4", SMALL)
    assert video_info(tmp_path / "copy.mp4").fps == pytest.approx(25)


BARS = ((191, 191, 191), (191, 191, 0), (0, 191, 191), (0, 191, 0), (191, 0, 191), (191, 0, 0), (0, 0, 191))


def write_bars(path: Path, pixels: str, *, colorspace: int, color_range: int) -> Path:
    """Bars of colour, 16 pixels wide, in a video that tells what its numbers mean."""
    bars = np.repeat(np.array(BARS, np.uint8), 16, axis=0)[None].repeat(64, axis=0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.height, stream.width, stream.pix_fmt = *bars.shape[:2], pixels
        stream.codec_context.colorspace, stream.codec_context.color_range = colorspace, color_range
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(bars, format="rgb24")
            frame = frame.reformat(format=pixels, dst_colorspace=colorspace, dst_color_range=color_range)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("pixels", "colorspace", "color_range"), [("yuv420p", 1, 1), ("yuvj420p", 5, 2), ("yuv420p", 9, 1)]
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_copy_has_the_same_colours(tmp_path, rotate_video, pixels, colorspace, color_range, turned):
    source = write_bars(tmp_path / "bars.mp4", pixels, colorspace=colorspace, color_range=color_range)
    source = rotate_video(source, tmp_path / "turned.mp4") if turned else source
    resize_video(source, tmp_path / "copy.mp4", ResizeConfig(short_side=64, crf=5))
    frame, expected = load_video(tmp_path / "copy.mp4", [1])[0], load_video(source, [1])[0]
    assert np.abs(frame.astype(int) - expected)[8:-8:16, 8:-8:16].max() <= 3


def shown_otherwise(folder, kind):
    """A video that players do not show as it is stored."""
    plain = unusual.write(folder / "plain.mp4")
    if kind == "anamorphic":
        return unusual.write(folder / "wide.mp4", unusual.Encoding(sample_aspect_ratio=Fraction(3, 2)))
    if kind == "cut":
        plain = unusual.add_clean_aperture(plain, folder / "cut.mp4", (14, 6, 6, 10))
    if kind == "rotation in keyframes":
        return unusual.write_rotation_in_keyframes(folder / "turned.ts")
    return unusual.orient(plain, folder / "mirrored.mp4", "+0+1+1+0")


@pytest.mark.parametrize("kind", ["mirrored", "anamorphic", "cut", "rotation in keyframes"])
def test_a_copy_is_what_players_show(tmp_path, kind):
    source = shown_otherwise(tmp_path, kind)
    resize_video(source, tmp_path / "copy.mp4", ResizeConfig(short_side=4096, crf=5))
    copied, info = load_video(tmp_path / "copy.mp4"), video_info(tmp_path / "copy.mp4")
    shown = load_video(source)
    assert copied.shape == shown.shape
    assert np.abs(copied.astype(int) - shown).mean() < 6
    assert (info.rotation, info.mirrored, info.sample_aspect_ratio) == (0, False, 1)


def test_frames_that_damage_took_away_shift_no_times(videos, tmp_path, monkeypatch):
    """The index still counts them when copying begins, and finds out only when decoding reaches the damage."""
    real = resize.frames_in_order
    monkeypatch.setattr(resize, "frames_in_order", lambda file: (pair for i, pair in enumerate(real(file)) if i != 7))
    resize_video(videos["short_gop"], tmp_path / "copy.mp4", SMALL)
    expected = np.delete(frame_times(videos["short_gop"]), 7)
    np.testing.assert_allclose(frame_times(tmp_path / "copy.mp4"), expected, atol=1e-4)


def test_small_videos_are_not_enlarged(videos, tmp_path):
    resize_video(videos["long_gop"], tmp_path / "copy.mp4", ResizeConfig(short_side=256))
    info = video_info(tmp_path / "copy.mp4")
    assert (info.height, info.width) == (48, 80)


def test_a_bad_video_is_named_and_leaves_nothing(not_videos, tmp_path):
    with pytest.raises(VideoError, match="text.mp4: not a video"):
        resize_video(not_videos["text"], tmp_path / "copy.mp4", SMALL)
    assert not list(tmp_path.iterdir())


def test_a_copy_stops_when_told(videos, tmp_path):
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        resize_video(videos["long_gop"], tmp_path / "copy.mp4", SMALL, stop=stop)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def data(videos, tmp_path) -> Path:
    """Four videos in two classes and two splits."""
    for place in ("train/run/a.avi", "train/jump/b.avi", "val/run/c.avi", "val/jump/d.avi"):
        path = tmp_path / "data" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(videos["mpeg4_b_frames"].read_bytes())
    return tmp_path / "data"


def copy(data: Path, output: Path, config: ResizeConfig = SMALL) -> list[str]:
    return resize_videos(read_splits(data), data, output, config=config, workers=2)


def test_a_data_set_is_copied_with_its_labels(data, tmp_path):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in data.rglob("*.avi")}
    assert copy(data, tmp_path / "small") == []
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in data.rglob("*.avi")} == before
    assert (tmp_path / "small/videos/train/run/a.mp4").is_file()
    for split in ("train", "val"):
        old, new = read_videos(data, split), read_videos(tmp_path / "small", split)
        assert new.class_names == old.class_names
        assert sorted(zip([Path(path).stem for path in new.paths], new.labels, strict=True)) == sorted(
            zip([Path(path).stem for path in old.paths], old.labels, strict=True)
        )


def test_an_interrupted_copy_goes_on(data, tmp_path, monkeypatch):
    copied = []
    real = resize.resize_video

    def interrupted(source, target, config, *, stop=None):
        if len(copied) == 2:
            raise KeyboardInterrupt
        copied.append(source)
        real(source, target, config, stop=stop)

    monkeypatch.setattr(resize, "resize_video", interrupted)
    with pytest.raises(KeyboardInterrupt):
        resize_videos(read_splits(data), data, tmp_path / "small", config=SMALL, workers=1)
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "small").rglob("*.mp4")}
    assert len(finished) == 2
    monkeypatch.undo()
    assert copy(data, tmp_path / "small") == []
    assert len(list((tmp_path / "small").rglob("*.mp4"))) == 4
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


def test_another_video_of_the_same_name_is_copied_anew(data, videos, tmp_path):
    copy(data, tmp_path / "small")
    original = data / "train/run/a.avi"
    original.write_bytes(videos["packed"].read_bytes())
    os.utime(original, ns=(1, 1))  # older than the copy
    copy(data, tmp_path / "small")
    expected = load_video(original, [20], short_side=32)
    assert psnr(load_video(tmp_path / "small/videos/train/run/a.mp4", [20])[:, :32, :52], expected[:, :32, :52]) > 24


def test_copies_of_other_data_are_no_copies_of_these(data, tmp_path):
    copy(data, tmp_path / "small")
    other = Path(shutil.copytree(data, tmp_path / "other"))
    with pytest.raises(DataError, match="holds copies made with .*/data"):
        copy(other, tmp_path / "small")


def test_relative_and_absolute_paths_go_together(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    splits = {"train": read_videos("data", "train"), "val": read_videos(tmp_path / "data", "val")}
    assert resize_videos(splits, Path("data"), Path("small"), config=SMALL, workers=1) == []
    assert len(read_videos("small", "val")) == 2


def test_bad_videos_are_named_and_left_out_of_the_lists(data, tmp_path):
    (data / "train/run/bad.mp4").write_bytes(b"no video")
    (line,) = copy(data, tmp_path / "small")
    assert "bad.mp4: not a video" in line
    rows = list(csv.DictReader((tmp_path / "small/train.csv").open()))
    assert [row["label"] for row in rows] == ["jump", "run"]


@pytest.mark.parametrize("names", [("run", "jump", "fall"), ("label", "path", "split"), ("a;b", "c|d", 'e "f", g')])
def test_several_labels_stay(videos, tmp_path, names):
    labels = np.array([[True, True, False], [False, False, False]])
    listed = VideoList([videos["long_gop"], videos["short_gop"]], labels, names)
    resize_videos({"train": listed}, tmp_path, tmp_path / "small", config=SMALL, workers=1)
    again = read_videos(tmp_path / "small/train.csv")
    assert again.multi_label
    assert again.class_names == names
    assert again.labels.tolist() == labels.tolist()


def test_class_names_that_a_list_cannot_hold_are_refused(videos, tmp_path):
    listed = VideoList([videos["long_gop"]], [0], ["run ", "two\nlines"])
    with pytest.raises(DataError, match=r"class names that a list cannot hold.*'run ', 'two\\nlines'"):
        write_table(tmp_path / "train.csv", listed)


def test_places_that_would_lose_something_are_refused(data, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").touch()
    with pytest.raises(DataError, match="is not empty and holds no copies"):
        copy(data, tmp_path / "other")
    for within in (data, data / "small", data / "train/run/small"):
        with pytest.raises(DataError, match="lies within the class folders"):
            copy(data, within)
    copy(data, tmp_path / "small")
    with pytest.raises(DataError, match="holds copies made with .*'short_side': 32.*name another folder"):
        copy(data, tmp_path / "small", ResizeConfig(short_side=48))
    (tmp_path / "small/resize.json").write_text("")
    with pytest.raises(DataError, match=r"resize\.json is damaged; remove"):
        copy(data, tmp_path / "small")
    (data / "train/run/a.mp4").touch()
    with pytest.raises(DataError, match=r"a\.avi and .*a\.mp4 would both become"):
        copy(data, tmp_path / "third")


def test_folders_of_pictures_are_refused(tmp_path):
    (tmp_path / "frames").mkdir()
    videos = VideoList([tmp_path / "frames"], [0], ["run"])
    with pytest.raises(DataError, match="folders of pictures are not copied"):
        resize_videos({"train": videos}, tmp_path, tmp_path / "small", config=SMALL, workers=1)


@pytest.mark.parametrize("settings", [{"short_side": 8}, {"crf": 52}, {"gop_size": 0}])
def test_settings_out_of_range(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=name):
        ResizeConfig(**settings)
