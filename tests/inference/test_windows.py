from __future__ import annotations

import pytest

from sifa_zoo.config import ClipConfig
from sifa_zoo.inference.windows import Windows, model_windows, to_frames, window_indices

CLIP = ClipConfig(num_frames=4, frame_stride=2, img_size=32)


@pytest.mark.parametrize(
    ("num_frames", "window", "hop", "starts"),
    [
        (10, 4, 4, [0, 4, 6]),
        (12, 4, 4, [0, 4, 8]),
        (4, 4, 1, [0]),
        (5, 4, 1, [0, 1]),
        (3, 4, 4, [0]),
        (1, 4, 2, [0]),
        (10, 1, 3, [0, 3, 6, 9]),
        (10, 2, 7, [0, 7, 8]),
        (10, 10, 1, [0]),
    ],
)
def test_starts(num_frames: int, window: int, hop: int, starts: list[int]) -> None:
    windows = Windows(window, hop)
    assert windows.starts(num_frames) == starts
    assert windows.count(num_frames) == len(starts)


@pytest.mark.parametrize("window", [1, 2, 5, 9])
@pytest.mark.parametrize("hop", [1, 2, 5, 11])
def test_frame_by_frame_gives_the_same(window: int, hop: int) -> None:
    """A stream of unknown length gives the windows of the whole video, and these cover its frames."""
    windows = Windows(window, hop)
    for num_frames in range(1, 30):
        found = [start for seen in range(1, num_frames + 1) if (start := windows.due(seen)) is not None]
        if (rest := windows.rest(num_frames)) is not None:
            found.append(rest)
        assert found == windows.starts(num_frames)
        covered = {frame for start in found for frame in range(start, start + window)}
        if hop <= window:
            assert covered >= set(range(num_frames))
        assert num_frames - 1 in covered


@pytest.mark.parametrize(("window", "hop"), [(0, 1), (1, 0), (-4, 2)])
def test_windows_refuse(window: int, hop: int) -> None:
    with pytest.raises(ValueError, match="window and hop must be at least 1 frame"):
        Windows(window, hop)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"overlap": False}, Windows(7, 8)),
        ({"overlap": True}, Windows(7, 4)),
        ({"overlap": True, "hop": 3}, Windows(7, 3)),
        ({"overlap": False, "window": "1s"}, Windows(10, 10)),
        ({"overlap": True, "window": "1s", "hop": "0.25s"}, Windows(10, 2)),
        ({"overlap": True, "window": 1}, Windows(1, 1)),
    ],
)
def test_windows_of_a_model(options: dict, expected: Windows) -> None:
    assert model_windows(CLIP, **{"window": None, "hop": None, "fps": 10.0, **options}) == expected


def test_a_clip_without_length_needs_a_window() -> None:
    uniform = ClipConfig(num_frames=4, sampling="uniform", img_size=32)
    with pytest.raises(ValueError, match="a window has to be given, such as 5s"):
        model_windows(uniform, window=None, hop=None, fps=10.0, overlap=True)
    assert model_windows(uniform, window="2s", hop=None, fps=10.0, overlap=True) == Windows(20, 10)
    assert window_indices(20, uniform) == [2, 7, 12, 17]


def test_the_model_sees_what_it_would_of_such_a_video() -> None:
    assert window_indices(7, CLIP) == [0, 2, 4, 6]
    assert window_indices(11, CLIP) == [2, 4, 6, 8]  # the centre
    assert window_indices(3, CLIP) == [0, 2, 2, 2]  # short videos repeat their last frame


@pytest.mark.parametrize(
    ("length", "frames"), [(16, 16), ("16", 16), ("1s", 30), ("0.5s", 15), ("0.001s", 1), (" 2s ", 60)]
)
def test_lengths(length: int | str, frames: int) -> None:
    assert to_frames(length, fps=30.0) == frames


@pytest.mark.parametrize("length", [0, "0", "-3", "x", "1.5", "s", "-1s", "nans", "infs", ""])
def test_lengths_that_are_none(length: int | str) -> None:
    with pytest.raises(ValueError, match="a length must be frames, such as 16, or seconds"):
        to_frames(length, fps=30.0)


def test_seconds_need_a_rate() -> None:
    with pytest.raises(ValueError, match="the frame rate is not known, so give frames instead of '1s'"):
        to_frames("1s", fps=0.0)
