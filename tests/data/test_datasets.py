from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from sifa_zoo.config import ClipConfig
from sifa_zoo.data.datasets import ClipDataset, check_videos
from sifa_zoo.data.decode import VideoError, load_video
from sifa_zoo.data.sampling import clip_indices
from sifa_zoo.data.transforms import eval_transform, train_transform
from sifa_zoo.data.videos import VideoList

CLIP = ClipConfig(num_frames=4, frame_stride=3, img_size=32)


@pytest.mark.parametrize("workers", [0, 2])
def test_check_names_every_bad_video(videos, not_videos, workers):
    paths = (videos["short_gop"], not_videos["text"], videos["gif"], not_videos["empty"])
    assert check_videos(VideoList(paths, (0,) * 4, ("run",)), workers=workers) == [
        f"{not_videos['text']}: not a video that FFmpeg can open",
        f"{not_videos['empty']}: the file is empty",
    ]


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


def test_bad_settings_and_videos_are_refused(video_list, not_videos):
    for settings in ({"num_clips": 0}, {"num_clips": 2, "seed": 0}):
        with pytest.raises(ValueError, match="num_clips must be at least 1, and 1 for training"):
            ClipDataset(video_list, CLIP, eval_transform(CLIP), **settings)
    bad = VideoList((not_videos["text"],), (0,), ("run",))
    with pytest.raises(VideoError, match="text.mp4: not a video"):
        ClipDataset(bad, CLIP, eval_transform(CLIP))[0]


def test_frames_reach_the_transform_in_torch_layout(video_list):
    frames, _, _ = ClipDataset(video_list, CLIP, lambda frames: frames)[0]  # (num_clips, T, C, H, W)
    expected = load_video(video_list.paths[0], clip_indices(40, num_frames=4, frame_stride=3), CLIP.short_side)
    np.testing.assert_array_equal(frames[0].permute(0, 2, 3, 1).numpy(), expected)
