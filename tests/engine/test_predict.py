from __future__ import annotations

from pathlib import Path

import pytest

from sifa_zoo.data.decode import VideoError
from sifa_zoo.engine.checkpoint import load_run
from sifa_zoo.engine.predict import predict
from sifa_zoo.registry import create_model


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
        ({"topk": 0}, "topk and num_clips must be at least 1"),
        ({"num_clips": 0}, "topk and num_clips must be at least 1"),
    ],
)
def test_predict_refuses(run_folder: Path, data: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict(load_run(run_folder), data / "val" / "red" / "0.mp4", **options)


def test_predict_names_a_bad_file(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"missing\.mp4"):
        predict(load_run(run_folder), tmp_path / "missing.mp4")
