from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.clips import ClipCutter
from sifa_zoo.inference.picture import clip_frames, draw_prediction
from sifa_zoo.preparing.motion import write_motion_clips


@pytest.mark.parametrize(
    "settings", [{}, {"fps": 10.0}, {"sampling": "uniform"}, {"crop_pct": 0.5}], ids=lambda settings: str(settings)
)
def test_clip_frames_are_those_of_prediction(tmp_path: Path, settings: dict) -> None:
    write_motion_clips(tmp_path, num_train=8, num_val=8)
    video = next(tmp_path.glob("val/*/*.mp4"))
    clip = ClipConfig(num_frames=4, frame_stride=2, img_size=32, **settings)
    (seen,) = ClipCutter(clip, lambda frames: frames).evaluate(str(video))
    assert np.array_equal(clip_frames(video, clip), seen.permute(0, 2, 3, 1))


@pytest.mark.parametrize(("num_frames", "rows"), [(4, 1), (8, 1), (16, 2), (20, 3)])
def test_frames_and_bars(num_frames: int, rows: int) -> None:
    frames = np.zeros((num_frames, 40, 60, 3), np.uint8)
    frames[0] = (255, 0, 0)
    image = draw_prediction(frames, [("waving", 0.75), ("a name that is far too long for its place " * 3, 0.25)])
    assert image.size == (932, rows * 116 + 16 + 2 * 30 + 8)
    assert image.getpixel((60, 60)) == (255, 0, 0)
    pixels = np.asarray(image)
    bars = [(pixels[rows * 116 + 16 + i * 30 + 15] == (31, 119, 180)).all(-1).sum() for i in range(2)]
    assert bars[0] == pytest.approx(3 * bars[1], abs=4)


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs frames and scores"):
        draw_prediction(np.zeros((0, 8, 8, 3), np.uint8), [("a", 1.0)])
    with pytest.raises(ValueError, match="needs frames and scores"):
        draw_prediction(np.zeros((4, 8, 8, 3), np.uint8), [])
