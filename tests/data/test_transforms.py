from __future__ import annotations

import pickle

import pytest
import torch
from torchvision.transforms import v2

from sifa_zoo.config import ClipConfig
from sifa_zoo.data.transforms import eval_transform, train_transform

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


def test_flips_can_be_turned_off():
    ramp = torch.arange(0, 256, 4, dtype=torch.uint8).expand(4, 3, 64, 64)  # brighter to the right

    def directions(hflip: bool) -> set[bool]:
        transform = train_transform(CLIP, hflip=hflip)
        return {bool((clip[0, 0, 0, -1] > clip[0, 0, 0, 0]).item()) for clip in (transform(ramp) for _ in range(40))}

    torch.manual_seed(0)
    assert directions(hflip=True) == {True, False}
    assert directions(hflip=False) == {True}


def test_whole_crop_scale_keeps_the_frame():
    torch.manual_seed(0)
    frames = _frames(32, 32)
    clips = [train_transform(CLIP, crop_scale=1.0, hflip=False)(frames) for _ in range(10)]
    assert any(torch.equal(clip, eval_transform(CLIP)(frames)) for clip in clips)


@pytest.mark.parametrize("crop_scale", [0, -0.5, 1.5])
def test_crop_scale_out_of_range_is_refused(crop_scale):
    with pytest.raises(ValueError, match=r"crop_scale must be in \(0, 1\], got crop_scale"):
        train_transform(CLIP, crop_scale=crop_scale)


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
    pickle.dumps(train_transform(CLIP))
