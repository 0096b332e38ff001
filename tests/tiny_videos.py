"""Two classes of tiny videos that differ in colour, for tests that train."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

CLASSES = ("blue", "red")
COLORS = ((200, 30, 30), (30, 30, 200))


def write_video(path: Path, *, color: tuple[int, int, int], num_frames: int = 12, seed: int = 0) -> Path:
    """Write an MP4 of 48 x 40 pixels with noise around a colour."""
    noise = np.random.default_rng(seed).integers(-20, 21, (num_frames, 40, 48, 3))
    return write_frames(path, np.clip(np.array(color) + noise, 0, 255).astype(np.uint8))


def write_frames(path: Path, frames: np.ndarray) -> Path:
    """Write frames `(T, 40, 48, 3)` at ten a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 40, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_two_colours(path: Path, *, num_frames: tuple[int, int] = (24, 12)) -> Path:
    """Write a video that is red for some frames, and blue for some."""
    parts = [np.full((count, 40, 48, 3), color, np.uint8) for count, color in zip(num_frames, COLORS, strict=True)]
    return write_frames(path, np.concatenate(parts))


def write_videos(root: Path, *, num_train: int = 3, num_val: int = 2) -> Path:
    """Write `root/train/CLASS/N.mp4` and `root/val/CLASS/N.mp4`."""
    colors = {"blue": (30, 30, 200), "red": (200, 30, 30)}
    for split, count in (("train", num_train), ("val", num_val)):
        for name in CLASSES:
            for i in range(count):
                seed = 2 * i + (split == "val")
                write_video(root / split / name / f"{i}.mp4", color=colors[name], seed=seed)
    return root
