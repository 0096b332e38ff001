"""A video read once, in order, against `load_video` and `clip_indices`."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tiny_videos import write_video

from sifa_zoo.datasets.sampling import clip_indices
from sifa_zoo.inference.source import open_source
from sifa_zoo.inference.stream import at_rate
from sifa_zoo.video.load import VideoError, load_video


def test_frames_are_those_of_load_video(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", color=(200, 30, 30), num_frames=25)
    with open_source(video, short_side=32) as source:
        assert source.fps == 10
        times, frames = zip(*source.frames, strict=True)
    np.testing.assert_array_equal(np.stack(frames), load_video(video, short_side=32))
    assert times == pytest.approx(np.arange(25) / 10)


def write_uneven(path: Path) -> tuple[Path, np.ndarray]:
    """Write H.264 with B-frames, so that the decoder holds back the last frames; returns the path and all times."""
    ticks = np.cumsum(np.random.default_rng(0).integers(1, 5, 20))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=25, options={"bf": "3"})
        stream.width, stream.height, stream.pix_fmt = 48, 40, "yuv420p"
        for number, pts in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(np.full((40, 48, 3), 10 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = int(pts), Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path, (ticks - ticks[0]) / 25


@pytest.mark.parametrize("scheme", ["", "file://"])  # a URL is read as a camera is, without knowing what comes
def test_times_are_those_of_the_frames(tmp_path: Path, scheme: str) -> None:
    video, expected = write_uneven(tmp_path / "a.mp4")
    with open_source(f"{scheme}{video}", short_side=32) as source:
        times, frames = zip(*source.frames, strict=True)
    np.testing.assert_allclose(times, expected, atol=1e-6)
    np.testing.assert_array_equal(np.stack(frames), load_video(video, short_side=32))


@pytest.mark.parametrize("fps", [5.0, 12.0, 60.0])
def test_frames_at_a_rate_are_those_of_sampling(tmp_path: Path, fps: float) -> None:
    video, times = write_uneven(tmp_path / "a.mp4")
    with open_source(video, short_side=32) as source:
        frames = np.stack([frame for _, frame in at_rate(source, fps).frames])
    indices = clip_indices(20, num_frames=int(times[-1] * fps + 1e-6) + 1, fps=fps, times=times, num_clips=2)
    np.testing.assert_array_equal(frames, load_video(video, indices, 32))


def test_a_clock_that_is_set_back_goes_on(tmp_path: Path) -> None:
    part = write_video(tmp_path / "a.ts", color=(200, 30, 30), num_frames=8).read_bytes()
    for path in (tmp_path / "a.ts", tmp_path / "whole.ts"):
        path.write_bytes(2 * part)
        with open_source(path, short_side=32) as source:
            assert [time for time, _ in source.frames] == pytest.approx(np.arange(16) / 10)


def test_a_folder_of_pictures_has_no_times(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="a folder; pictures have no times"), open_source(tmp_path, short_side=32):
        pass
