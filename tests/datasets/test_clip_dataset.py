from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from sifa_zoo.config import AugmentConfig, ClipConfig
from sifa_zoo.datasets.clip_dataset import ClipDataset
from sifa_zoo.datasets.clip_sampler import ClipSampler
from sifa_zoo.datasets.mirror import mirrored_classes
from sifa_zoo.datasets.sampling import clip_indices
from sifa_zoo.datasets.transforms import eval_transform, train_transform
from sifa_zoo.datasets.videos import VideoList
from sifa_zoo.video.load import VideoError, frame_times, load_video

CLIP = ClipConfig(num_frames=4, frame_stride=3, img_size=32)


@pytest.fixture
def video_list(videos) -> VideoList:
    return VideoList((videos["short_gop"], videos["mpeg4_b_frames"], videos["one_frame"]), (1, 0, 1), ("run", "jump"))


def test_evaluation_clips(video_list):
    dataset = ClipDataset(video_list, CLIP, eval_transform(CLIP), num_clips=3)
    clips, label, index = dataset[0]
    assert (clips.shape, clips.dtype, label, index) == ((3, 3, 4, 32, 32), torch.float32, 1, 0)
    for number, clip in enumerate(clips):
        indices = clip_indices(40, num_frames=4, frame_stride=3, clip=number, num_clips=3)
        frames = torch.from_numpy(load_video(video_list.paths[0], indices, CLIP.short_side)).permute(0, 3, 1, 2)
        assert torch.equal(clip, eval_transform(CLIP)(frames))
    assert dataset[2][0].shape == clips.shape
    assert torch.equal(dataset[2][0], dataset[2][0][:, :, :1].expand_as(clips))  # one frame, repeated


def test_training_clips_depend_on_seed_epoch_and_index_alone(video_list):
    dataset = ClipDataset(video_list, CLIP, train_transform(CLIP), seed=5)
    again = ClipDataset(video_list, CLIP, train_transform(CLIP), seed=5)
    clip, label, index = dataset[1]
    assert (clip.shape, clip.dtype, label, index) == ((3, 4, 32, 32), torch.float32, 0, 1)
    torch.rand(3)
    before = torch.get_rng_state()
    assert torch.equal(again[1][0], clip)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(ClipDataset(video_list, CLIP, train_transform(CLIP), seed=6)[1][0], clip)
    dataset.set_epoch(1)
    assert not torch.equal(dataset[1][0], clip)
    dataset.set_epoch(0)
    assert torch.equal(dataset[1][0], clip)


def test_workers_that_live_on_see_the_epoch(video_list):
    dataset = ClipDataset(video_list, CLIP, train_transform(CLIP), seed=5)
    loader = DataLoader(dataset, batch_size=3, num_workers=1, persistent_workers=True)
    for epoch in range(3):
        dataset.set_epoch(epoch)
        (clips, labels, indices), *_ = list(loader)
        assert labels.tolist() == [1, 0, 1]
        assert indices.tolist() == [0, 1, 2]
        assert torch.equal(clips, torch.stack([dataset[i][0] for i in range(3)]))


def test_training_does_not_enlarge_small_videos(video_list):
    sizes = []

    def transform(frames: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(frames.shape[-2:]))
        return frames.float()

    for img_size in (32, 224):
        clip = ClipConfig(num_frames=4, img_size=img_size)
        ClipDataset(video_list, clip, transform, seed=0)[0]
    assert sizes == [(37, 62), (48, 80)]


def test_another_draw_is_another_clip(video_list):
    dataset = ClipDataset(video_list, CLIP, train_transform(CLIP), seed=5)
    first, again, second = dataset[0], dataset[0, 0], dataset[0, 1]
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], second[0])
    assert first[1:] == second[1:]


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_give_the_same_clips_however_they_start(video_list, start_method):
    mirrored = mirrored_classes(("turn left", "turn right"))
    train = AugmentConfig(rand_augment=1, color_jitter_prob=0.5, erase_prob=0.5)
    dataset = ClipDataset(video_list, CLIP, train_transform(CLIP, train), seed=5, mirrored=mirrored)
    sampler = ClipSampler(video_list, seed=5, repeats=2)
    dataset.set_epoch(3)
    loader = DataLoader(dataset, batch_size=2, sampler=sampler, num_workers=2, multiprocessing_context=start_method)
    batches = list(loader)
    items = [dataset[key] for key in sampler]
    assert torch.equal(torch.cat([clips for clips, _, _ in batches]), torch.stack([clip for clip, _, _ in items]))
    assert torch.cat([labels for _, labels, _ in batches]).tolist() == [label for _, label, _ in items]


def _looks_mirrored(dataset: ClipDataset, draw: int) -> bool:
    """Whether a clip of the first video, cut whole, is the mirror image of one of its frames."""
    clip, _, _ = dataset[0, draw]
    plain = ClipDataset(dataset.videos, CLIP, dataset.cutter.transform, seed=dataset.seed)[0, draw][0]
    same, image = torch.equal(clip, plain), torch.equal(clip, plain.flip(-1))
    assert same != image
    return image


def _mirrored_labels(videos: VideoList, mirrored: np.ndarray | None) -> list[tuple[bool, object]]:
    dataset = ClipDataset(videos, CLIP, lambda frames: frames, seed=0, mirrored=mirrored)
    return [(_looks_mirrored(dataset, draw), dataset[0, draw][1]) for draw in range(16)]


def test_a_mirrored_clip_has_the_label_of_the_mirror_image(videos):
    names = ("turn left", "turn right", "jump", "left hook")
    mirrored = mirrored_classes(names)
    for label, image in ((0, 1), (1, 0), (2, 2)):
        found = _mirrored_labels(VideoList([videos["short_gop"]], [label], names), mirrored)
        assert set(found) == {(False, label), (True, image)}
    never = VideoList([videos["short_gop"]], [3], names)
    assert set(_mirrored_labels(never, mirrored)) == {(False, 3)}
    assert set(_mirrored_labels(never, None)) == {(False, 3)}


def test_several_labels(videos):
    names = ("turn left", "turn right", "jump", "left hook")
    labels = np.array([[True, False, True, False], [True, False, False, True]])
    both = VideoList([videos["short_gop"], videos["short_gop"]], labels, names)
    dataset = ClipDataset(both, CLIP, lambda frames: frames, seed=0, mirrored=mirrored_classes(names))
    assert dataset[0][1].dtype == torch.float32
    assert {tuple(dataset[0, draw][1].tolist()) for draw in range(16)} == {(1, 0, 1, 0), (0, 1, 1, 0)}
    assert {tuple(dataset[1, draw][1].tolist()) for draw in range(16)} == {(1, 0, 0, 1)}
    _, label, _ = ClipDataset(both, CLIP, eval_transform(CLIP))[1]
    assert label.tolist() == [1, 0, 0, 1]


def test_fps_takes_frames_by_their_times(videos):
    path, clip = videos["uneven_times"], replace(CLIP, fps=15.0)
    frames, _, _ = ClipDataset(VideoList([path], [0], ["run"]), clip, lambda frames: frames)[0]
    settings = {"num_frames": 4, "frame_stride": 3}
    by_time = clip_indices(40, **settings, fps=15.0, times=frame_times(path))
    assert by_time != clip_indices(40, **settings)
    np.testing.assert_array_equal(frames[0].permute(0, 2, 3, 1).numpy(), load_video(path, by_time, CLIP.short_side))


def test_pictures_have_no_rate(tmp_path):
    for number in range(5):
        Image.new("RGB", (48, 48)).save(tmp_path / f"{number:05}.jpg")
    pictures = VideoList([tmp_path], [0], ["run"])
    with pytest.raises(VideoError, match="a folder of pictures has no rate, which fps needs; leave fps out"):
        ClipDataset(pictures, replace(CLIP, fps=30.0), eval_transform(CLIP))[0]
    assert ClipDataset(pictures, CLIP, eval_transform(CLIP))[0][0].shape == (1, 3, 4, 32, 32)


def test_views_are_clips_times_crops(video_list):
    one = ClipDataset(video_list, CLIP, eval_transform(CLIP), num_clips=2)
    dataset = ClipDataset(video_list, CLIP, eval_transform(CLIP, num_crops=3), num_clips=2, num_crops=3)
    views, label, index = dataset[0]
    assert (views.shape, label, index) == ((6, 3, 4, 32, 32), 1, 0)
    assert torch.equal(views[1::3], one[0][0])  # the middle crop of each clip
    assert not torch.equal(views[0], views[1])
    with pytest.raises(ValueError, match="num_crops must be that of the transform, 1, got 3"):
        ClipDataset(video_list, CLIP, eval_transform(CLIP), num_crops=3)[0]
    with pytest.raises(ValueError, match="num_crops must be that of the transform, 3, got 1"):
        ClipDataset(video_list, CLIP, eval_transform(CLIP, 3))[0]


def test_bad_settings_and_videos_are_refused(video_list, not_videos):
    for name in ("num_clips", "num_crops"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            ClipDataset(video_list, CLIP, eval_transform(CLIP), **{name: 0})
        with pytest.raises(ValueError, match="training takes one clip and one crop"):
            ClipDataset(video_list, CLIP, eval_transform(CLIP), seed=0, **{name: 3})
    bad = VideoList((not_videos["text"],), (0,), ("run",))
    with pytest.raises(VideoError, match="text.mp4: not a video"):
        ClipDataset(bad, CLIP, eval_transform(CLIP))[0]


def test_frames_reach_the_transform_in_torch_layout(video_list):
    frames, _, _ = ClipDataset(video_list, CLIP, lambda frames: frames)[0]  # (num_clips, T, C, H, W)
    expected = load_video(video_list.paths[0], clip_indices(40, num_frames=4, frame_stride=3), CLIP.short_side)
    np.testing.assert_array_equal(frames[0].permute(0, 2, 3, 1).numpy(), expected)
