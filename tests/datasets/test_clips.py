from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from sifa_zoo.config import AugmentConfig, ClipConfig
from sifa_zoo.datasets.clip_sampler import ClipSampler
from sifa_zoo.datasets.clips import ClipCutter, ClipDataset
from sifa_zoo.datasets.mirror import mirrored_classes
from sifa_zoo.datasets.sampling import clip_indices
from sifa_zoo.datasets.transforms import eval_transform, train_transform
from sifa_zoo.datasets.videos import VideoList
from sifa_zoo.video.load import VideoError, frame_times, load_video

CLIP = ClipConfig(num_frames=4, frame_stride=3, img_size=32)
SIDES = ("turn left", "turn right", "jump", "left hook")


@pytest.fixture
def video_list(videos) -> VideoList:
    return VideoList((videos["short_gop"], videos["mpeg4_b_frames"], videos["one_frame"]), (1, 0, 1), ("run", "jump"))


def training(videos: VideoList, *, seed: int = 5, augment: AugmentConfig | None = None, **settings) -> ClipDataset:
    return ClipDataset(videos, ClipCutter(CLIP, train_transform(CLIP, augment), seed=seed, **settings))


def evaluation(videos: VideoList, *, clip: ClipConfig = CLIP, crops: int = 1, **settings) -> ClipDataset:
    return ClipDataset(videos, ClipCutter(clip, eval_transform(clip, crops), **settings))


def untouched(videos: VideoList, *, clip: ClipConfig = CLIP, **settings) -> ClipDataset:
    """Frames as they are decoded, `(T, C, H, W)`."""
    return ClipDataset(videos, ClipCutter(clip, lambda frames: frames, **settings))


def assert_decoded(frames: torch.Tensor, path: str, indices: list[int]) -> None:
    """Whether frames are those of these numbers, at the short side of evaluation."""
    np.testing.assert_array_equal(frames.permute(0, 2, 3, 1).numpy(), load_video(path, indices, CLIP.short_side))


def test_evaluation_clips(video_list):
    dataset = evaluation(video_list, num_clips=3)
    clips, label, index = dataset[0]
    assert (clips.shape, clips.dtype, label, index) == ((3, 3, 4, 32, 32), torch.float32, 1, 0)
    for number, (clip, frames) in enumerate(zip(clips, untouched(video_list, num_clips=3)[0][0], strict=True)):
        indices = clip_indices(40, num_frames=4, frame_stride=3, clip=number, num_clips=3)
        assert_decoded(frames, video_list.paths[0], indices)
        assert torch.equal(clip, eval_transform(CLIP)(frames))
    assert dataset[2][0].shape == clips.shape
    assert torch.equal(dataset[2][0], dataset[2][0][:, :, :1].expand_as(clips))  # one frame, repeated


def test_training_clips_depend_on_seed_and_key_alone(video_list):
    dataset, again = training(video_list), training(video_list)
    clip, label, index = dataset[1]
    assert (clip.shape, clip.dtype, label, index) == ((3, 4, 32, 32), torch.float32, 0, 1)
    torch.rand(3)
    before = torch.get_rng_state()
    assert torch.equal(again[1][0], clip)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(dataset[1, 0, 0][0], clip)
    for other in (training(video_list, seed=6)[1], dataset[1, 1, 0], dataset[1, 0, 1]):
        assert not torch.equal(other[0], clip)
        assert other[1:] == (label, index)


def test_workers_that_live_on_see_the_epoch(video_list):
    dataset, sampler = training(video_list), ClipSampler(video_list, seed=5)
    loader = DataLoader(dataset, batch_size=3, sampler=sampler, num_workers=1, persistent_workers=True)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        (clips, labels, indices), *_ = list(loader)
        assert sorted(zip(indices.tolist(), labels.tolist(), strict=True)) == [(0, 1), (1, 0), (2, 1)]
        assert torch.equal(clips, torch.stack([dataset[i, 0, epoch][0] for i in indices.tolist()]))


def test_training_does_not_enlarge_small_videos(video_list):
    clips = [replace(CLIP, img_size=size) for size in (32, 224)]
    sizes = [untouched(video_list, clip=clip, seed=0)[0][0].shape[-2:] for clip in clips]
    assert sizes == [(37, 62), (48, 80)]


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_give_the_same_clips_however_they_start(video_list, start_method):
    augment = AugmentConfig(rand_augment=1, color_jitter_prob=0.5, erase_prob=0.5)
    dataset = training(video_list, augment=augment, mirrored=mirrored_classes(("turn left", "turn right")))
    sampler = ClipSampler(video_list, seed=5, repeats=2)
    sampler.set_epoch(3)
    loader = DataLoader(dataset, batch_size=2, sampler=sampler, num_workers=2, multiprocessing_context=start_method)
    batches, items = list(loader), [dataset[key] for key in sampler]
    assert torch.equal(torch.cat([clips for clips, _, _ in batches]), torch.stack([clip for clip, _, _ in items]))
    assert torch.cat([labels for _, labels, _ in batches]).tolist() == [label for _, label, _ in items]


def mirrored_labels(video: str, label: int, mirrored: np.ndarray | None) -> set[tuple[bool, object]]:
    """Whether clips of a video, cut whole, are mirror images of its frames, and their labels."""
    videos, found = VideoList([video], [label], SIDES), set()
    for draw in range(16):
        clip, got, _ = untouched(videos, seed=0, mirrored=mirrored)[0, draw, 0]
        plain = untouched(videos, seed=0)[0, draw, 0][0]
        same, image = torch.equal(clip, plain), torch.equal(clip, plain.flip(-1))
        assert same != image
        found.add((image, got))
    return found


def test_a_mirrored_clip_has_the_label_of_the_mirror_image(videos):
    video, mirrored = videos["short_gop"], mirrored_classes(SIDES)
    for label, image in ((0, 1), (1, 0), (2, 2)):
        assert mirrored_labels(video, label, mirrored) == {(False, label), (True, image)}
    assert mirrored_labels(video, 3, mirrored) == mirrored_labels(video, 3, None) == {(False, 3)}


def test_several_labels(videos):
    labels = np.array([[True, False, True, False], [True, False, False, True]])
    both = VideoList([videos["short_gop"], videos["short_gop"]], labels, SIDES)
    dataset = untouched(both, seed=0, mirrored=mirrored_classes(SIDES))
    assert dataset[0][1].dtype == torch.float32
    drawn = [{tuple(dataset[index, draw, 0][1].tolist()) for draw in range(16)} for index in range(2)]
    assert drawn == [{(1, 0, 1, 0), (0, 1, 1, 0)}, {(1, 0, 0, 1)}]
    assert evaluation(both)[1][1].tolist() == [1, 0, 0, 1]


def test_fps_takes_frames_by_their_times(videos):
    path, settings = videos["uneven_times"], {"num_frames": 4, "frame_stride": 3}
    by_time = clip_indices(40, **settings, fps=15.0, times=frame_times(path))
    assert by_time != clip_indices(40, **settings)
    frames, _, _ = untouched(VideoList([path], [0], ["run"]), clip=replace(CLIP, fps=15.0))[0]
    assert_decoded(frames[0], path, by_time)


def test_pictures_have_no_rate(tmp_path):
    for number in range(5):
        Image.new("RGB", (48, 48)).save(tmp_path / f"{number:05}.jpg")
    pictures = VideoList([tmp_path], [0], ["run"])
    with pytest.raises(VideoError, match="a folder of pictures has no rate, which fps needs; leave fps out"):
        evaluation(pictures, clip=replace(CLIP, fps=30.0))[0]
    assert evaluation(pictures)[0][0].shape == (1, 3, 4, 32, 32)


def test_views_are_clips_times_crops(video_list):
    views, label, index = evaluation(video_list, crops=3, num_clips=2, num_crops=3)[0]
    assert (views.shape, label, index) == ((6, 3, 4, 32, 32), 1, 0)
    assert torch.equal(views[1::3], evaluation(video_list, num_clips=2)[0][0])  # the middle crop of each clip
    assert not torch.equal(views[0], views[1])
    for crops, num_crops in ((1, 3), (3, 1)):
        with pytest.raises(ValueError, match=f"num_crops must be that of the transform, {crops}, got {num_crops}"):
            evaluation(video_list, crops=crops, num_crops=num_crops)[0]


def test_bad_settings_and_videos_are_refused(video_list, not_videos):
    for name in ("num_clips", "num_crops"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            evaluation(video_list, **{name: 0})
        with pytest.raises(ValueError, match="training takes one clip and one crop"):
            training(video_list, **{name: 3})
    with pytest.raises(VideoError, match="text.mp4: not a video"):
        evaluation(VideoList((not_videos["text"],), (0,), ("run",)))[0]
