from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sifa_zoo.config import ClipConfig, EvalConfig
from sifa_zoo.datasets.clips import ClipCutter
from sifa_zoo.datasets.videos import DataError
from sifa_zoo.inference.predict import clip_frames, find_below, find_videos, predict, predict_videos
from sifa_zoo.preparing.motion import write_motion_clips
from sifa_zoo.registry.create import create_model
from sifa_zoo.runtime.checkpoint import load_run
from sifa_zoo.video.load import VideoError


def test_predict_knows_the_classes(run_folder: Path, data: Path) -> None:
    model = load_run(run_folder)
    for name in ("blue", "red"):
        scores = predict(model, data / "val" / name / "0.mp4")
        assert scores[0][0] == name
        assert sum(score for _, score in scores) == pytest.approx(1)
        assert scores[0][1] >= scores[1][1]


def test_predict_options(run_folder: Path, data: Path) -> None:
    model, video = load_run(run_folder), data / "val" / "red" / "0.mp4"
    assert len(predict(model, video, topk=1)) == 1
    assert predict(model, video, class_names=("0", "1"), num_clips=3)[0][0] == "1"
    assert predict(model.train(), video) == predict(model.eval(), video)


def test_predict_keeps_the_mode(run_folder: Path, data: Path) -> None:
    model = load_run(run_folder).train()
    predict(model, data / "val" / "red" / "0.mp4")
    assert model.training


def test_predict_refuses_an_untrained_head(data: Path) -> None:
    model = create_model("sifa_net_nano", num_classes=2, num_frames=4, img_size=32)
    with pytest.raises(ValueError, match="head was never trained"):
        predict(model, data / "val" / "red" / "0.mp4")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_names": ("one",)}, "class_names must be 2 names"),
        ({"topk": 0}, "topk must be at least 1, got 0"),
        ({"num_clips": 0}, "num_clips must be at least 1, got 0"),
    ],
)
def test_predict_refuses(run_folder: Path, data: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict(load_run(run_folder), data / "val" / "red" / "0.mp4", **options)


def test_predict_names_a_bad_file(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"missing\.mp4"):
        predict(load_run(run_folder), tmp_path / "missing.mp4")


def test_several_classes_have_scores_of_their_own(run_folder: Path, data: Path) -> None:
    model, video = load_run(run_folder), data / "val" / "red" / "0.mp4"
    one = dict(predict(model, video))
    model.pretrained_cfg = {**model.pretrained_cfg, "multi_label": True}
    several = dict(predict(model, video))
    odds = {name: score / (1 - score) for name, score in several.items()}  # of a sigmoid: exp(logit)
    assert one["red"] == pytest.approx(odds["red"] / (odds["red"] + odds["blue"]), abs=1e-5)
    assert sum(several.values()) != pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (3, 0), (8, 1)])
def test_many_videos_come_in_order(run_folder: Path, data: Path, tmp_path: Path, batch_size: int, workers: int) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    videos = [data / "val" / name for name in ("red/0.mp4", "blue/0.mp4", "red/1.mp4")]
    videos[1:1] = [tmp_path / "empty.mp4", tmp_path / "missing.mp4"]
    model = load_run(run_folder)
    found = list(predict_videos(model, videos, EvalConfig(batch_size=batch_size, workers=workers)))
    assert [prediction.path for prediction in found] == [str(video) for video in videos]
    assert [prediction.scores[0][0] if prediction.scores else None for prediction in found] == [
        *("red", None, None, "blue", "red")
    ]
    assert [prediction.error and "mp4: " in prediction.error for prediction in found] == [None, True, True, None, None]
    assert "empty" in str(found[1].error)
    assert dict(found[0].scores) == pytest.approx(dict(predict(model, videos[0])), abs=1e-6)


def test_find_videos(data: Path, tmp_path: Path) -> None:
    folder = [str(path) for path in sorted((data / "val").rglob("*.mp4"))]
    assert len(folder) == 4
    assert find_videos([data / "val"]) == folder
    assert find_videos([f"{data}/val/**/*.mp4", data / "val"]) == folder
    assert find_videos(["missing.mp4", folder[3]]) == ["missing.mp4", folder[3]]
    bracketed = tmp_path / "clip[1].MP4"
    bracketed.write_bytes(b"")
    assert find_videos([bracketed]) == [str(bracketed)]
    assert find_videos([tmp_path]) == [str(bracketed)]
    (tmp_path / "none").mkdir()
    (tmp_path / "linked").symlink_to(data / "val")
    assert len(find_videos([tmp_path])) == 5
    frames = tmp_path / "frames"
    frames.mkdir()
    (frames / "0.jpg").write_bytes(b"")
    assert find_videos([frames]) == [str(frames)]
    assert find_below([frames]) == {str(frames): Path("frames")}
    assert str(frames) in find_videos([tmp_path])
    with pytest.raises(DataError, match=r"no videos below .*none; known are \.mp4"):
        find_videos([tmp_path / "none"])
    with pytest.raises(DataError, match=r"no file matches .*\*\.avi"):
        find_videos([f"{tmp_path}/*.avi"])


@pytest.mark.parametrize(
    "settings", [{}, {"fps": 10.0}, {"sampling": "uniform"}, {"crop_pct": 0.5}], ids=lambda settings: str(settings)
)
def test_clip_frames_are_those_of_prediction(tmp_path: Path, settings: dict) -> None:
    write_motion_clips(tmp_path, num_train=8, num_val=8)
    video = next(tmp_path.glob("val/*/*.mp4"))
    clip = ClipConfig(num_frames=4, frame_stride=2, img_size=32, **settings)
    (seen,) = ClipCutter(clip, lambda frames: frames).evaluate(str(video))
    assert np.array_equal(clip_frames(video, clip), seen.permute(0, 2, 3, 1))
