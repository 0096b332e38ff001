from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch
from torchvision.transforms import v2

from sifa_zoo.config import AugmentConfig, ClipConfig
from sifa_zoo.datasets.transforms import eval_transform, train_transform

CLIP = ClipConfig(num_frames=4, img_size=32, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))


def _frames(height: int, width: int) -> torch.Tensor:
    """Four equal frames of noise, uint8 `(T, C, H, W)`."""
    frame = torch.randint(256, (1, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return frame.expand(4, -1, -1, -1)


@pytest.mark.parametrize("transform", [train_transform(CLIP), eval_transform(CLIP)])
@pytest.mark.parametrize("size", [(32, 32), (40, 57), (90, 33)])
def test_layout_and_dtype(transform, size):
    clip = transform(_frames(*size))
    assert clip.shape == (3, 4, 32, 32)
    assert clip.dtype == torch.float32
    assert clip.is_contiguous()


@pytest.mark.parametrize("seed", range(5))
def test_all_frames_of_a_clip_are_treated_alike(seed):
    torch.manual_seed(seed)
    clip = train_transform(CLIP)(_frames(40, 57))
    assert (clip == clip[:, :1]).all()


def test_training_is_random_and_follows_the_seed():
    transform, frames = train_transform(CLIP), _frames(40, 57)
    clips = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        clips.append(transform(frames))
    assert torch.equal(clips[0], clips[1])
    assert not torch.equal(clips[0], clips[2])


def test_whole_crop_scale_keeps_the_frame():
    torch.manual_seed(0)
    frames = _frames(32, 32)
    clips = [train_transform(CLIP, AugmentConfig(crop_scale=1.0))(frames) for _ in range(10)]
    assert any(torch.equal(clip, eval_transform(CLIP)(frames)) for clip in clips)


def test_crop_ratio_one_cuts_squares():
    torch.manual_seed(0)
    ramp = torch.arange(64, dtype=torch.uint8).expand(4, 3, 64, 64)  # brighter to the right
    both = torch.stack([ramp[0], ramp[0].transpose(-1, -2)])
    for _ in range(5):
        across, down = train_transform(CLIP, AugmentConfig(crop_scale=0.1, crop_ratio=1.0))(both).unbind(1)
        rise = across[0, 0, -1] - across[0, 0, 0], down[0, -1, 0] - down[0, 0, 0]
        torch.testing.assert_close(*rise, rtol=0.1, atol=0.05)


AUGMENTS = {
    "rand_augment": AugmentConfig(rand_augment=2, rand_augment_magnitude=27),
    "color_jitter": AugmentConfig(color_jitter_prob=1.0),
    "grayscale": AugmentConfig(grayscale_prob=1.0),
    "blur": AugmentConfig(blur_prob=1.0),
    "erase": AugmentConfig(erase_prob=1.0),
}


@pytest.mark.parametrize("augment", AUGMENTS.values(), ids=AUGMENTS)
def test_augmentation_changes_clips_all_frames_alike(augment):
    frames, changed = _frames(40, 57), 0
    for seed in range(8):
        clips = []
        for settings in (augment, augment, AugmentConfig()):
            torch.manual_seed(seed)
            clips.append(train_transform(CLIP, settings)(frames))
        assert clips[0].shape == (3, 4, 32, 32)
        assert (clips[0] == clips[0][:, :1]).all()
        assert torch.equal(clips[0], clips[1])
        changed += not torch.equal(clips[0], clips[2])
    assert changed >= 6


def test_grayscale_erasing_and_blur_do_what_they_say():
    torch.manual_seed(0)
    plain = ClipConfig(num_frames=4, img_size=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    frames = _frames(40, 57)
    gray = train_transform(plain, AugmentConfig(grayscale_prob=1.0))(frames)
    assert torch.equal(gray[0], gray[1])
    blurred = train_transform(plain, AugmentConfig(crop_scale=1.0, blur_prob=1.0, blur_sigma=(2.0, 2.0)))(frames)
    assert blurred.std() < 0.5 * train_transform(plain, AugmentConfig(crop_scale=1.0))(frames).std()
    erased = train_transform(CLIP, AugmentConfig(erase_prob=1.0))(frames)
    assert (erased.abs() < 0.01).all(0).float().mean() > 0.02  # the mean colour, 0 to the model


def test_probability_is_the_share_of_clips():
    torch.manual_seed(0)
    plain = ClipConfig(num_frames=4, img_size=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    transform = train_transform(plain, AugmentConfig(grayscale_prob=0.5))
    gray = [torch.equal(*transform(_frames(40, 57))[:2]) for _ in range(60)]
    assert 15 <= sum(gray) <= 45


def test_evaluation_normalises_the_centre_crop():
    frames = _frames(32, 64)
    clip = eval_transform(CLIP)(frames)
    mean, std = torch.tensor(CLIP.mean).view(3, 1, 1), torch.tensor(CLIP.std).view(3, 1, 1)
    expected = (frames[0, :, :, 16:48] / 255 - mean) / std
    torch.testing.assert_close(clip[:, 2], expected)


def test_evaluation_resizes_the_short_side_before_the_crop():
    clip = ClipConfig(num_frames=4, img_size=32, crop_pct=0.5)
    frames = _frames(90, 130)
    resized = v2.Resize(64, antialias=True)(frames)
    torch.testing.assert_close(eval_transform(clip)(frames), eval_transform(clip)(resized), rtol=0, atol=0)


def test_transforms_travel_to_other_processes():
    frames = _frames(40, 57)
    transform = pickle.loads(pickle.dumps(eval_transform(CLIP)))
    assert torch.equal(transform(frames), eval_transform(CLIP)(frames))
    pickle.dumps(eval_transform(CLIP, 3))
    for augment in AUGMENTS.values():
        pickle.dumps(train_transform(CLIP, augment))


@pytest.mark.parametrize("size", [(32, 64), (70, 32), (90, 130), (32, 32)])
def test_three_crops_are_the_ends_and_the_middle_of_the_longer_side(size):
    frames = _frames(*size)
    crops = eval_transform(CLIP, num_crops=3)(frames)
    assert crops.shape == (3, 3, 4, 32, 32)
    assert torch.equal(crops[1], eval_transform(CLIP)(frames))
    short = v2.Resize(32, antialias=True)(frames)
    assert torch.equal(crops[0], eval_transform(CLIP)(short[..., :32, :32]))
    assert torch.equal(crops[2], eval_transform(CLIP)(short[..., -32:, -32:]))


def test_three_crops_are_in_the_middle_of_the_shorter_side():
    clip = replace(CLIP, crop_pct=0.5)
    frames = _frames(64, 100)
    assert torch.equal(eval_transform(clip, 3)(frames)[0], eval_transform(CLIP)(frames[..., 16:48, :32]))


def test_two_crops_are_refused():
    with pytest.raises(ValueError, match=r"num_crops must be one of \(1, 3\), got num_crops = 2"):
        eval_transform(CLIP, num_crops=2)
