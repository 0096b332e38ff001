"""The generated motion clips: what the classes mean, that nothing else tells them apart, and the files."""

import json
from pathlib import Path

import av
import numpy as np
import pytest

from sifa_zoo.preparing import motion
from sifa_zoo.preparing.motion import CLASSES, render_clip, write_motion_clips

PAIRS = [("left", "right"), ("up", "down"), ("grow", "shrink"), ("clockwise", "counterclockwise")]


@pytest.fixture(scope="module")
def clips_folder(tmp_path_factory) -> Path:
    return write_motion_clips(tmp_path_factory.mktemp("data") / "motion", num_train=16, num_val=8, progress=False)


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def drawn_phases(seed: int, moving: int) -> np.ndarray:
    return motion._draw_phases(np.random.default_rng(seed), 32, moving=moving)


def paste_dot(**changes: list[float]) -> np.ndarray:
    """Shape opacity `(T, 48, 64)` of a sprite that is opaque in its right half, over black, without shake."""
    sprite = np.zeros((64, 64, 4), np.float32)
    sprite[8:56, 32:56] = (255, 255, 255, 1)
    length = len(next(iter(changes.values())))
    phases = np.tile([0.5, 0.5, 0.5, 0.0], (length, 1))
    for name, values in changes.items():
        phases[:, ("x", "y", "size", "angle").index(name)] = values
    frames = np.zeros((length, 48, 64, 3), np.uint8)
    return motion._paste(frames, sprite, phases, np.zeros((length, 2), int))[..., 0] / 255.0


def centroid(opacity: np.ndarray) -> tuple[float, float]:
    rows, columns = np.indices(opacity.shape)
    return (rows * opacity).sum() / opacity.sum(), (columns * opacity).sum() / opacity.sum()


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_classes_of_a_pair_are_each_other_backwards(first, second):
    forward = render_clip(first, np.random.default_rng(3), num_frames=9, size=(48, 64))
    backward = render_clip(second, np.random.default_rng(3), num_frames=9, size=(48, 64))
    np.testing.assert_array_equal(forward, backward[::-1])
    assert (forward != backward).any()


@pytest.mark.parametrize("class_name", CLASSES)
def test_all_classes_take_the_same_random_numbers(class_name):
    rng, reference = np.random.default_rng(4), np.random.default_rng(4)
    clip = render_clip(class_name, rng)
    first = render_clip(CLASSES[0], reference)
    assert clip.shape == first.shape
    assert rng.random() == reference.random()


@pytest.mark.parametrize(("class_name", "moving"), [("right", 0), ("down", 1), ("grow", 2), ("clockwise", 3)])
def test_forward_class_increases_its_quantity_only(class_name, moving, monkeypatch):
    seen = []
    paste = motion._paste
    monkeypatch.setattr(motion, "_paste", lambda *args: seen.append(args[2]) or paste(*args))
    render_clip(class_name, np.random.default_rng(5), num_frames=12, size=(48, 48))
    steps = np.diff(seen[0], axis=0) % 1
    assert (steps[:, moving] > 1 / 71).all()
    assert (steps[:, moving] < 1 / 29).all()
    assert not np.delete(steps, moving, axis=1).any()


def test_quantities_move_the_shape_as_named():
    right, down = paste_dot(x=[0.4, 0.5]), paste_dot(y=[0.4, 0.5])
    assert centroid(right[1])[1] - centroid(right[0])[1] == pytest.approx(0.1 * 64, abs=0.3)
    assert centroid(down[1])[0] - centroid(down[0])[0] == pytest.approx(0.1 * 48, abs=0.3)
    grown = paste_dot(size=[0.0, 1.0]).sum((1, 2))
    assert grown[1] / grown[0] == pytest.approx((0.48 / 0.12) ** 2, rel=0.05)
    # clockwise on the screen: what was on the right goes to the bottom, the left and the top
    (_, start), (bottom, _), (_, left), (top, _) = (centroid(o) for o in paste_dot(angle=[0, 0.25, 0.5, 0.75]))
    assert start > 34
    assert bottom > 26
    assert left < 30
    assert top < 22


def test_shape_enters_at_the_opposite_edge():
    middle, edge = paste_dot(x=[0.5, 0.0])
    assert edge[:, 1].any()
    assert not edge[:, 32].any()
    np.testing.assert_allclose(np.roll(middle, -32, axis=1), edge, atol=1e-6)


@pytest.mark.parametrize("moving", range(4))
def test_moving_quantity_is_uniform_at_every_frame(moving):
    phases = np.stack([drawn_phases(seed, moving)[:, moving] for seed in range(1000)])  # (video, T)
    shares = (np.sort(phases, axis=0) - (np.arange(1000)[:, None] + 0.5) / 1000).T  # distance to uniform, per frame
    assert np.abs(shares).max() < 0.07
    assert phases.min() >= 0
    assert phases.max() < 1


def test_rendering_is_deterministic_and_varied():
    first, again = (render_clip("grow", np.random.default_rng(6)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    shapes = {render_clip("grow", np.random.default_rng(seed)).shape for seed in range(4)}
    assert len(shapes) == 4
    for length, height, width, channels in shapes:
        assert 24 <= length <= 64
        assert 96 <= min(height, width) <= 160
        assert height % 2 == width % 2 == 0
        assert channels == 3


@pytest.mark.parametrize("size", [(32, 32), (33, 65), (65, 33)])
def test_smallest_and_odd_sizes(size):
    clip = render_clip("shrink", np.random.default_rng(0), num_frames=1, size=size)
    assert clip.shape == (1, *size, 3)
    assert clip.dtype == np.uint8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_name": "sideways"}, "class_name must be one of"),
        ({"class_name": "left", "num_frames": 0}, "num_frames must be at least 1"),
        ({"class_name": "left", "size": (96, 16)}, "size must be at least 32 by 32"),
    ],
)
def test_render_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        render_clip(rng=np.random.default_rng(0), **arguments)


def test_files_are_balanced_and_hold_the_rendered_clips(clips_folder):
    assert {path.name for path in clips_folder.iterdir()} == {"train", "val", "motion.json"}
    assert {path.name for path in clips_folder.parent.iterdir()} == {"motion"}
    for split, count in (("train", 2), ("val", 1)):
        assert sorted(path.name for path in (clips_folder / split).iterdir()) == sorted(CLASSES)
        for class_name in CLASSES:
            names = [path.name for path in sorted((clips_folder / split / class_name).iterdir())]
            assert names == [f"{number:04d}.mp4" for number in range(count)]

    train_seed, val_seed = np.random.SeedSequence(0).spawn(2)
    for split, seed, count in (("train", train_seed, 16), ("val", val_seed, 8)):
        for number, video_seed in enumerate(seed.spawn(count)):
            class_name = CLASSES[number % 8]
            expected = render_clip(class_name, np.random.default_rng(video_seed)).astype(int)
            decoded = decode(clips_folder / split / class_name / f"{number // 8:04d}.mp4")
            assert decoded.shape == expected.shape
            assert np.abs(decoded - expected).mean() < 16  # of 255: coding error


def test_frame_times_are_regular(clips_folder):
    for path in clips_folder.glob("*/*/*.mp4"):
        with av.open(str(path)) as container:
            rate = container.streams.video[0].average_rate
            times = [frame.time for frame in container.decode(video=0)]
        assert 12 <= rate <= 30
        np.testing.assert_allclose(np.diff(times), float(1 / rate), atol=1e-3)


def test_same_seed_writes_the_same_videos_and_another_seed_others(clips_folder, tmp_path):
    again = write_motion_clips(tmp_path / "again", num_train=8, num_val=8, progress=False)
    other = write_motion_clips(tmp_path / "other", num_train=8, num_val=8, seed=1, progress=False)
    name = "train/left/0000.mp4"
    np.testing.assert_array_equal(decode(again / name), decode(clips_folder / name))
    assert decode(other / name).shape != decode(again / name).shape
    assert decode(again / "val/left/0000.mp4").shape != decode(again / name).shape


def test_complete_folder_is_used_again(clips_folder):
    before = {path: path.stat().st_mtime_ns for path in clips_folder.rglob("*")}
    assert write_motion_clips(str(clips_folder), num_train=16, num_val=8) == clips_folder
    assert {path: path.stat().st_mtime_ns for path in clips_folder.rglob("*")} == before


def test_empty_folder_is_filled(tmp_path):
    write_motion_clips(tmp_path / "new" / "motion", num_train=8, num_val=8, progress=False)
    (tmp_path / "empty").mkdir()
    write_motion_clips(tmp_path / "empty", num_train=8, num_val=8, progress=False)
    assert len(list(tmp_path.glob("empty/*/*/*.mp4"))) == len(list(tmp_path.glob("new/motion/*/*/*.mp4"))) == 16


def test_held_clips_move_between_groups_only():
    frames = render_clip("left", np.random.default_rng(0), size=(64, 64), hold=4)
    groups = frames.reshape(4, 4, 64, 64, 3)
    assert (groups == groups[:, :1]).all()
    assert all((groups[i] != groups[i + 1]).any() for i in range(3))
    backwards = render_clip("right", np.random.default_rng(0), size=(64, 64), hold=4)
    assert (frames == backwards[::-1]).all()


def test_held_clips_are_another_data_set(tmp_path):
    root = write_motion_clips(tmp_path / "motion", num_train=8, num_val=8, hold=4, progress=False)
    assert write_motion_clips(root, num_train=8, num_val=8, hold=4, progress=False) == root
    with pytest.raises(ValueError, match="holds the motion clips of .*, not of "):
        write_motion_clips(root, num_train=8, num_val=8, progress=False)


@pytest.mark.parametrize("kwargs", [{"hold": 0}, {"hold": 4, "num_frames": 18}])
def test_hold_out_of_range(kwargs):
    with pytest.raises(ValueError, match="multiple of hold"):
        render_clip("left", np.random.default_rng(0), **kwargs)


def test_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(path, seed, *, hold):
        raise KeyboardInterrupt

    monkeypatch.setattr(motion, "_write_video", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_motion_clips(tmp_path / "motion", num_train=8, num_val=8, progress=False)
    assert not list(tmp_path.iterdir())


def test_without_libx264_every_video_is_mpeg4(tmp_path, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    root = write_motion_clips(tmp_path / "motion", num_train=8, num_val=8, progress=False)
    for path in root.glob("*/*/*.mp4"):
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.name == "mpeg4"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_train": 12}, "num_train must be a positive multiple of 8, got num_train = 12"),
        ({"num_val": 0}, "num_val must be a positive multiple of 8"),
        ({"seed": -1}, "seed must not be negative"),
    ],
)
def test_write_errors(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_motion_clips(tmp_path / "motion", **arguments)
    assert not list(tmp_path.iterdir())


def test_folders_that_hold_anything_else_are_refused(clips_folder, tmp_path):
    with pytest.raises(ValueError, match="seed.*, not of .*; name another folder"):
        write_motion_clips(clips_folder, num_train=16, num_val=8, seed=1)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="expected a folder, got a file"):
        write_motion_clips(tmp_path / "file", num_train=8, num_val=8)
    with pytest.raises(ValueError, match="not generated motion clips"):
        write_motion_clips(tmp_path, num_train=8, num_val=8)
    (tmp_path / "motion.json").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="not generated motion clips"):
        write_motion_clips(tmp_path, num_train=8, num_val=8)
    manifest = json.loads((clips_folder / "motion.json").read_text())
    (tmp_path / "motion.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="24 motion clips are missing, the first is .*clockwise.*0000.mp4"):
        write_motion_clips(tmp_path, num_train=16, num_val=8)
