from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_videos import write_two_colours, write_video

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.sampling import clip_indices
from sifa_zoo.datasets.transforms import eval_transform
from sifa_zoo.inference.predict import predict
from sifa_zoo.inference.source import Source
from sifa_zoo.inference.stream import WindowScores, at_rate, merge, predict_stream, slide
from sifa_zoo.inference.windows import Windows
from sifa_zoo.registry.create import create_model
from sifa_zoo.runtime.checkpoint import clip_config, load_run
from sifa_zoo.video.load import VideoError, load_video

CLIP = ClipConfig(num_frames=4, frame_stride=2, img_size=32)


def test_scores_equal_the_offline_path(run_folder: Path, tmp_path: Path) -> None:
    """The same frames, read by number, through the transform of evaluation."""
    model, video = load_run(run_folder), write_two_colours(tmp_path / "a.mp4", num_frames=(13, 12))
    clip = clip_config(model)
    windows = list(predict_stream(model, video, hop=3, topk=2))
    starts = Windows(window=4, hop=3).starts(25)
    assert [window.start for window in windows] == pytest.approx([start / 10 for start in starts])
    assert [window.end for window in windows] == pytest.approx([(start + 4) / 10 for start in starts])
    for start, window in zip(starts, windows, strict=True):
        frames = load_video(video, range(start, start + 4), clip.short_side)
        with torch.inference_mode():
            logits = model(eval_transform(clip)(torch.from_numpy(frames).permute(0, 3, 1, 2))[None])[0]
        offline = dict(zip(("blue", "red"), logits.softmax(-1).tolist(), strict=True))
        assert dict(window.scores) == pytest.approx(offline, abs=1e-5)
    assert [window.scores[0][0] for window in windows][:: len(windows) - 1] == ["red", "blue"]


def test_a_window_as_long_as_the_video_is_a_prediction(run_folder: Path, tmp_path: Path) -> None:
    model, video = load_run(run_folder), write_video(tmp_path / "a.mp4", color=(30, 30, 200), num_frames=11)
    for window in (11, 500):
        (scores,) = predict_stream(model, video, window=window)
        assert dict(scores.scores) == pytest.approx(dict(predict(model, video)), abs=1e-5)


def _source(count: int) -> Source:
    def frames() -> Iterator[tuple[float, np.ndarray]]:
        for i in range(count):
            yield i / 10, np.full((32, 32, 3), i % 256, np.uint8)

    return Source(10.0, frames())


def test_windows_hold_their_frames() -> None:
    cuts = list(slide(_source(20), CLIP, Windows(window=7, hop=5)))
    assert [cut.clip[:, 0, 0, 0].tolist() for cut in cuts] == [
        [start, start + 2, start + 4, start + 6] for start in (0, 5, 10, 13)
    ]
    assert cuts[1].times.tolist() == [0.5, 0.7, 0.9, 1.1]
    assert (cuts[1].start, cuts[1].end) == pytest.approx((0.5, 1.2))


def test_memory_does_not_grow_with_the_video() -> None:
    peaks = []
    for count in (50, 2000):
        tracemalloc.start()
        assert sum(1 for _ in slide(_source(count), CLIP, Windows(window=7, hop=1))) == count - 6
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]


@pytest.mark.parametrize("fps", [3, 10, 7.5, 25])
@pytest.mark.parametrize("num_frames", [1, 2, 30])
def test_at_rate_shows_the_frames_of_sampling_by_time(fps: float, num_frames: int) -> None:
    times = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.2, num_frames))
    times -= times[0]
    frames = [(time, np.full((1, 1, 3), i, np.uint8)) for i, time in enumerate(times)]
    shown = list(at_rate(Source(10.0, iter(frames)), fps).frames)
    count = int(times[-1] * fps + 1e-9) + 1
    assert [time for time, _ in shown] == pytest.approx([i / fps for i in range(count)])
    expected = clip_indices(num_frames, num_frames=count, fps=fps, times=times, clip=0, num_clips=2)
    assert [frame[0, 0, 0] for _, frame in shown] == expected


def test_windows_at_the_rate_of_the_clip(run_folder: Path, tmp_path: Path) -> None:
    """At 5 of the video's 10 frames a second every other frame counts."""
    model, video = load_run(run_folder), write_video(tmp_path / "a.mp4", color=(200, 30, 30), num_frames=21)
    clip = dataclasses.replace(clip_config(model), fps=5)
    windows = list(predict_stream(model, video, clip=clip, hop=4))
    assert [window.start for window in windows] == pytest.approx([0, 0.8, 1.4])
    frames = torch.from_numpy(load_video(video, range(8, 16, 2), clip.short_side)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        scores = model(eval_transform(clip)(frames)[None])[0].softmax(-1)
    assert dict(windows[1].scores) == pytest.approx(dict(zip(("blue", "red"), scores.tolist(), strict=True)), abs=1e-5)


def _window(start: float, label: str, score: float) -> WindowScores:
    return WindowScores(start, start + 2, [(label, score), ("other", 0.1)])


def test_equal_neighbours_become_a_segment() -> None:
    windows = [_window(0, "a", 0.6), _window(1, "a", 0.8), _window(2, "b", 0.5), _window(3, "a", 0.9)]
    segments = list(merge(windows))
    assert [(s.start, s.end, s.label, s.windows) for s in segments] == [
        (0, 2.5, "a", 2),  # halfway between the middles of the second and the third window, 2 and 3
        (2.5, 3.5, "b", 1),
        (3.5, 5, "a", 1),
    ]
    assert segments[0].score == pytest.approx(0.7)
    assert list(merge([])) == []


def test_segments_come_as_soon_as_they_end() -> None:
    seen = []

    def windows() -> Iterator[WindowScores]:
        for start, label in enumerate("aabb"):
            seen.append(start)
            yield _window(start, label, 0.5)

    assert next(merge(windows())).label == "a"
    assert seen == [0, 1, 2]


def test_segments_find_the_change(run_folder: Path, tmp_path: Path) -> None:
    video = write_two_colours(tmp_path / "a.mp4", num_frames=(30, 20))
    segments = list(merge(predict_stream(load_run(run_folder), video, hop=1)))
    assert [segment.label for segment in segments] == ["red", "blue"]
    assert segments[0].end == segments[1].start == pytest.approx(3, abs=0.3)
    assert (segments[0].start, segments[1].end) == pytest.approx((0, 5))


def test_what_is_no_video(run_folder: Path, tmp_path: Path) -> None:
    model = load_run(run_folder)
    (tmp_path / "text.mp4").write_text("no video")
    for name, reason in (("text.mp4", "not a video"), ("missing.mp4", "no such file")):
        with pytest.raises(VideoError, match=rf"{name}: {reason}"):
            list(predict_stream(model, tmp_path / name))
    with pytest.raises(VideoError, match="nothing://here: cannot be opened as a video"):
        list(predict_stream(model, "nothing://here"))


def test_topk_out_of_range(run_folder: Path) -> None:
    with pytest.raises(ValueError, match="topk must be at least 1, got 0"):
        next(predict_stream(load_run(run_folder), "missing.mp4", topk=0))


def test_an_untrained_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="head was never trained"):
        list(predict_stream(create_model("sifa_net_nano", num_classes=2), tmp_path / "a.mp4"))
