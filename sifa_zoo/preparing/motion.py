"""Generated videos whose class is a motion: a small data set that cannot be solved from single frames.

A textured shape moves over a textured background under a shaking camera. The eight classes are four pairs, and a clip
of one class played backwards is a clip of the other. One of four quantities cycles at constant speed:

    x      right, or left            the shape leaves at one edge and enters at the opposite one
    y      down, or up               the same
    size   grow, or shrink           from its largest the shape jumps to its smallest, or the reverse
    angle  clockwise, or counterclockwise

The start of the cycle is uniform, so at every frame number the frames of the two classes of a pair have the same
distribution: from one frame, even with its number, nobody can tell the two apart better than by guessing. Everything
else (length, size, colours, outline, speed, shake, codec, frame rate) is drawn regardless of the class. Only coding
errors can betray the direction, since coding goes forward in time.

With `hold`, the picture stands still for that many frames, then jumps to where it would have moved: with 4, a clip of
consecutive frames has four equal ones in each group of four, so that motion exists only between the groups.

Mirroring turns left into right and clockwise into counterclockwise; fine-tuning mirrors these clips and their labels.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np

from sifa_zoo.config import usable_cores
from sifa_zoo.preparing.parallel_map import parallel_map

CLASSES = ("left", "right", "up", "down", "grow", "shrink", "clockwise", "counterclockwise")  # pairs, side by side
FORWARD = ("right", "down", "grow", "clockwise")  # the quantity of the pair increases

_MANIFEST = "motion.json"
_FORMAT = 1  # of the generator; increase it when the same seed gives other clips
_SPRITE_SIZE = 64


def render_clip(
    class_name: str,
    rng: np.random.Generator,
    *,
    num_frames: int | None = None,
    size: tuple[int, int] | None = None,
    hold: int = 1,
) -> np.ndarray:
    """Draw one clip.

    From generators in the same state, the two classes of a pair give the same frames in opposite order.

    Args:
        class_name: One of `CLASSES`.
        rng: Source of everything random.
        num_frames: Length. None draws it from 24 to 64, or takes `4 * hold` with `hold`.
        size: Height and width in pixels, at least 32. None draws even numbers, with a short side of 96 to 160.
        hold: Frames for which the picture stands still; `num_frames` must be a multiple of it.

    Returns:
        Frames `(T, H, W, 3)`, uint8, RGB.

    Raises:
        ValueError: If the class is unknown, or length or size is out of range.

    Example:
        >>> render_clip("left", np.random.default_rng(0), num_frames=16, size=(96, 128)).shape
        (16, 96, 128, 3)
    """
    if class_name not in CLASSES:
        raise ValueError(f"class_name must be one of {CLASSES}, got {class_name = }")
    if num_frames is not None and num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames = }")
    if hold < 1 or (num_frames or 0) % hold:
        raise ValueError(
            f"num_frames must be a multiple of hold, which must be at least 1, got {num_frames = }, {hold = }"
        )
    if size is not None and min(size) < 32:
        raise ValueError(f"size must be at least 32 by 32 pixels, got {size = }")

    # Every class draws everything, so that the stream of random numbers does not depend on the class.
    drawn_size, drawn_frames = _draw_size(rng), int(rng.integers(24, 65))
    height, width = drawn_size if size is None else size
    num_frames = num_frames or (drawn_frames if hold == 1 else 4 * hold)
    background_colors, shape_colors = _draw_colors(rng)
    background = _colorize(_texture(rng, (height, width), smoothness=1.2), background_colors)
    sprite = _draw_sprite(rng, shape_colors)
    phases = _draw_phases(rng, num_frames, moving=CLASSES.index(class_name) // 2)
    shake = rng.integers(-1, 2, (num_frames, 2))  # rows, columns

    shown = np.arange(0, num_frames, hold)
    frames = _paste(_shaken(background, shake[shown]), sprite, phases[shown], shake[shown]).repeat(hold, axis=0)
    return frames if class_name in FORWARD else np.ascontiguousarray(frames[::-1])


def write_motion_clips(
    root: str | os.PathLike[str],
    *,
    num_train: int = 320,
    num_val: int = 80,
    seed: int = 0,
    hold: int = 1,
    progress: bool = True,
) -> Path:
    """Write the data set as `root/train/CLASS/0000.mp4` and `root/val/CLASS/0000.mp4`, balanced over the classes.

    The videos are H.264, one in ten MPEG-4 Part 2. They are written beside `root` and moved there once complete. A
    folder that already holds the same data set is kept.

    Args:
        root: Folder to create; it may exist if it is empty.
        num_train: Training videos, a multiple of 8.
        num_val: Validation videos, a multiple of 8. They share no random numbers with the training videos.
        seed: Not negative; the same seed gives the same frames.
        hold: Frames for which the picture stands still, as in `render_clip`.
        progress: Show a progress bar.

    Returns:
        The folder.

    Raises:
        ValueError: If a number is out of range, or `root` holds something else.

    Example:
        >>> root = write_motion_clips("demo/motion", num_train=16, num_val=8)
    """
    root = Path(root)
    counts = {"train": num_train, "val": num_val}
    for split, count in counts.items():
        if count < len(CLASSES) or count % len(CLASSES):
            raise ValueError(f"num_{split} must be a positive multiple of {len(CLASSES)}, got num_{split} = {count}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed = }")
    if hold < 1:
        raise ValueError(f"hold must be at least 1, got {hold = }")
    manifest = {"format": _FORMAT, "seed": seed, "num_train": num_train, "num_val": num_val}
    manifest |= {"hold": hold} if hold > 1 else {}
    if _is_written(root, manifest):
        return root

    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as folder:
        work = Path(folder) / root.name
        _write_videos(work, counts, seed=seed, hold=hold, progress=progress)
        (work / _MANIFEST).write_text(json.dumps(manifest) + "\n")
        if root.exists():
            root.rmdir()  # _is_written has found it empty
        work.rename(root)
    return root


def _is_written(root: Path, manifest: dict[str, int]) -> bool:
    """Whether `root` holds this data set; raises if it holds something else."""
    way_out = "name another folder or remove this one"
    if not root.exists():
        return False
    if not root.is_dir():
        raise ValueError(f"{root}: expected a folder, got a file; {way_out}")
    if not any(root.iterdir()):
        return False
    try:
        found = json.loads((root / _MANIFEST).read_text())
    except (FileNotFoundError, ValueError):  # ValueError: not JSON, or not text
        raise ValueError(f"{root}: holds files that are not generated motion clips; {way_out}") from None
    if found != manifest:
        raise ValueError(f"{root}: holds the motion clips of {found}, not of {manifest}; {way_out}")
    expected = {*_video_paths(root / "train", manifest["num_train"]), *_video_paths(root / "val", manifest["num_val"])}
    missing = sorted(expected - set(root.glob("*/*/*.mp4")))
    if missing:
        raise ValueError(f"{root}: {len(missing)} motion clips are missing, the first is {missing[0]}; {way_out}")
    return True


def _write_videos(root: Path, counts: dict[str, int], *, seed: int, hold: int, progress: bool) -> None:
    """Write this many videos per split, each from a seed of its own, spawned from that of its split."""
    videos: list[tuple[Path, np.random.SeedSequence]] = []
    for (split, count), split_seed in zip(counts.items(), np.random.SeedSequence(seed).spawn(len(counts)), strict=True):
        videos += zip(_video_paths(root / split, count), split_seed.spawn(count), strict=True)
    write, workers = partial(_write_video, hold=hold), min(8, usable_cores())
    for _ in parallel_map(write, videos, workers=workers, text="motion clips", quiet=not progress):
        pass


def _video_paths(folder: Path, count: int) -> Iterator[Path]:
    """The files of a split, with the classes in turn."""
    for number in range(count):
        yield folder / CLASSES[number % len(CLASSES)] / f"{number // len(CLASSES):04d}.mp4"


def _write_video(video: tuple[Path, np.random.SeedSequence], _stop: threading.Event, *, hold: int) -> None:
    """Render the clip of the class that the folder names, and encode it with settings drawn from the same seed."""
    path, seed = video
    rng = np.random.default_rng(seed)
    frames = render_clip(path.parent.name, rng, hold=hold)
    fps = Fraction(str(rng.choice(["12", "15", "24000/1001", "24", "25", "30000/1001", "30"])))
    mpeg4 = rng.random() < 0.1 or "libx264" not in av.codecs_available
    gop_size, max_b_frames, crf = (int(n) for n in rng.integers((6, 0, 16), (65, 4, 27)))
    # threads=1: videos are already encoded in parallel
    options = {"qmin": "2", "qmax": "5"} if mpeg4 else {"crf": str(crf), "preset": "veryfast"}

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4" if mpeg4 else "libx264", rate=fps, options={**options, "threads": "1"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = gop_size
        stream.max_b_frames = 0 if mpeg4 else max_b_frames
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _draw_size(rng: np.random.Generator) -> tuple[int, int]:
    """Even height and width; one video in four is upright."""
    short = 2 * int(rng.integers(48, 81))
    long = 2 * round(short * rng.uniform(1, 1.34) / 2)
    return (long, short) if rng.random() < 0.25 else (short, long)


def _draw_colors(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two colours `(2, 3)` each for background and shape; the shape differs from the background in every channel."""
    background = rng.uniform(80, 175, 3)
    shape = background + rng.choice((-1, 1), 3) * rng.uniform(45, 80, 3)
    contrasts = rng.uniform(20, 60, (2, 3)) * rng.choice((-1, 1), (2, 3))
    both = np.array([[-1], [1]])
    return background + both * contrasts[0], shape + both * contrasts[1]


def _texture(rng: np.random.Generator, size: tuple[int, int], *, smoothness: float) -> np.ndarray:
    """Noise `(H, W)` in [0, 1] that tiles seamlessly, with amplitude `frequency ** -smoothness`."""
    height, width = size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf  # no mean
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(size)) * frequency**-smoothness, s=size)
    return np.clip(0.5 + noise / (4 * noise.std()), 0, 1)


def _colorize(texture: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Blend two colours by a texture: uint8 `(H, W, 3)`."""
    blend = colors[0] + texture[..., None] * (colors[1] - colors[0])
    return np.clip(blend.round(), 0, 255).astype(np.uint8)


def _draw_sprite(rng: np.random.Generator, colors: np.ndarray) -> np.ndarray:
    """A textured shape `(S, S, 4)`: float32 RGB and opacity; the outline is a closed curve without symmetry."""
    v, u = np.mgrid[-1 : 1 : _SPRITE_SIZE * 1j, -1 : 1 : _SPRITE_SIZE * 1j]
    theta = np.arctan2(v, u)[..., None]
    harmonics = np.arange(1, 5)
    amplitudes = rng.uniform(0.15, 0.4, 4) / np.sqrt(harmonics)
    outline = 1 + (amplitudes * np.cos(harmonics * theta + rng.uniform(0, 2 * np.pi, 4))).sum(-1)
    outline = np.maximum(0.9 * outline / outline.max(), 0.3)
    opacity = np.clip((outline - np.hypot(u, v)) / 0.08, 0, 1)
    texture = _texture(rng, (_SPRITE_SIZE, _SPRITE_SIZE), smoothness=1.6)
    return np.dstack([_colorize(texture, colors), opacity]).astype(np.float32)


def _draw_phases(rng: np.random.Generator, num_frames: int, *, moving: int) -> np.ndarray:
    """The four quantities `(T, 4)` in [0, 1), of which one increases and wraps to 0.

    They are fractions of the width, of the height, of the way from the smallest size to the largest (logarithmic), and
    of a turn. A position that does not change is near the middle, so that a centre crop shows the shape.
    """
    start, cycle = rng.random(4), rng.uniform(30, 70)  # frames per cycle
    phases = np.tile(start * (0.4, 0.4, 1, 1) + (0.3, 0.3, 0, 0), (num_frames, 1))
    phases[:, moving] = (start[moving] + np.arange(num_frames) / cycle) % 1
    return phases


def _shaken(background: np.ndarray, shake: np.ndarray) -> np.ndarray:
    """The background `(H, W, 3)` moved by whole pixels in each frame, `(T, H, W, 3)`."""
    height, width = background.shape[:2]
    rows = (np.arange(height) - shake[:, :1]) % height  # (T, H)
    columns = (np.arange(width) - shake[:, 1:]) % width  # (T, W)
    return background[rows[:, :, None], columns[:, None, :]]


def _paste(frames: np.ndarray, sprite: np.ndarray, phases: np.ndarray, shake: np.ndarray) -> np.ndarray:
    """Draw the sprite into a copy of the frames `(T, H, W, 3)`; what leaves at one edge enters at the opposite one."""
    num_frames, height, width, _ = frames.shape
    center = phases[:, 1::-1] * (height, width) + shake  # (T, 2): row, column
    radius = 0.12 * min(height, width) * (0.48 / 0.12) ** phases[:, 2]
    reach = int(np.ceil(radius.max())) + 1
    corner = np.floor(center).astype(int)
    offsets = np.arange(-reach, reach + 1)
    y, x = (offsets - (center - corner)[:, i, None] for i in (0, 1))  # (T, P) each
    cos, sin = (f(2 * np.pi * phases[:, 3])[:, None, None] / radius[:, None, None] for f in (np.cos, np.sin))
    y, x = y[:, :, None].astype(np.float32), x[:, None, :].astype(np.float32)
    cos, sin = cos.astype(np.float32), sin.astype(np.float32)
    sampled = _bilinear(sprite, x * cos + y * sin, y * cos - x * sin)  # (T, P, P, 4)

    time = np.arange(num_frames)[:, None, None]
    rows = ((corner[:, :1] + offsets) % height)[:, :, None]
    columns = ((corner[:, 1:] + offsets) % width)[:, None, :]
    behind = frames[time, rows, columns]
    pasted = frames.copy()
    pasted[time, rows, columns] = np.rint(behind + sampled[..., 3:] * (sampled[..., :3] - behind)).astype(np.uint8)
    return pasted


def _bilinear(sprite: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Sample the sprite at u (rightwards) and v (downwards); it is transparent from its edges at -1 and 1 outwards."""
    last = sprite.shape[0] - 1
    column = np.clip((u + 1) * (last / 2), 0, last - 1e-3)
    row = np.clip((v + 1) * (last / 2), 0, last - 1e-3)
    left, top = column.astype(np.intp), row.astype(np.intp)
    right_share, bottom_share = (column - left)[..., None].astype(np.float32), (row - top)[..., None].astype(np.float32)
    pixels = sprite.reshape(-1, sprite.shape[-1])
    first = top * sprite.shape[0] + left
    upper = pixels.take(first, 0) * (1 - right_share) + pixels.take(first + 1, 0) * right_share
    first = first + sprite.shape[0]
    lower = pixels.take(first, 0) * (1 - right_share) + pixels.take(first + 1, 0) * right_share
    return upper * (1 - bottom_share) + lower * bottom_share
