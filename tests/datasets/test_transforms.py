from __future__ import annotations

import pickle
from dataclasses import replace
from functools import partial

import pytest
import torch
from torchvision.transforms import v2

from sifa_zoo.config import AugmentConfig, ClipConfig
from sifa_zoo.datasets.transforms import (
    BatchMixer,
    SeparableBlur,
    eval_transform,
    normalize_clips,
    train_transform,
)

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


@pytest.mark.parametrize("sigma", [0.1, 0.4, 1.0, 2.0, 9.0])
@pytest.mark.parametrize("size", [(1, 33, 47), (3, 16, 9), (1, 7, 7)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_blur_is_torchvisions_within_a_grey_level(sigma, size, layout):
    frames = _frames(*size[1:])[: size[0]].contiguous(memory_format=layout)
    for kernel_size in (1, 13, (3, 7)):
        blurred = SeparableBlur(kernel_size, (sigma, sigma))(frames)
        expected = v2.GaussianBlur(kernel_size, (sigma, sigma))(frames)
        assert blurred.dtype == torch.uint8
        distance = (blurred.int() - expected.int()).abs()
        assert distance.max() <= 1
        assert (distance > 0).float().mean() < 0.01


def test_blur_leaves_floats_to_torchvision():
    frames = _frames(16, 9) / 255
    assert torch.equal(SeparableBlur(5, (1.0, 1.0))(frames), v2.GaussianBlur(5, (1.0, 1.0))(frames))


@pytest.mark.parametrize("seed", range(8))
def test_training_is_that_of_torchvisions_plain_transforms(seed):
    augment = AugmentConfig(color_jitter_prob=0.8, grayscale_prob=0.2, blur_prob=0.5, erase_prob=0.5)
    plain = v2.Compose(
        [
            v2.RandomResizedCrop(32, (augment.crop_scale, 1.0), (1 / augment.crop_ratio, augment.crop_ratio)),
            v2.RandomApply([v2.ColorJitter(*augment.color_jitter)], 0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(13, augment.blur_sigma)], 0.5),
            v2.RandomErasing(0.5, value=[255 * mean for mean in CLIP.mean]),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(CLIP.mean, CLIP.std),
        ]
    )
    clips = []
    for transform in (plain, train_transform(CLIP, augment)):
        torch.manual_seed(seed)
        clips.append(transform(_frames(40, 57)))
    level = 1 / 255 / min(CLIP.std)
    torch.testing.assert_close(clips[1].transpose(0, 1), clips[0], rtol=0, atol=3.01 * level)
    assert (clips[1].transpose(0, 1) != clips[0]).float().mean() < 0.01


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


LABELS = torch.tensor([0, 1, 2, 2])


def _clips() -> torch.Tensor:
    """Clips `(4, 3, 4, 8, 8)`, each of one value, that of its place in the batch."""
    return torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, 3, 4, 8, 8).clone()


def _mixer(**settings: float) -> BatchMixer:
    return BatchMixer(AugmentConfig(**settings), num_classes=4, seed=1)


def test_mixup_mixes_clips_and_labels_in_the_same_proportion():
    labels = torch.arange(4)
    clips, targets = _mixer(mixup_alpha=1.0)(_clips(), labels, epoch=0, step=0)
    assert type(clips) is torch.Tensor
    assert clips.shape == (4, 3, 4, 8, 8)
    torch.testing.assert_close(targets.sum(1), torch.ones(4))
    torch.testing.assert_close(clips[:, 0, 0, 0, 0], targets @ torch.arange(4.0))
    assert (clips == clips[:, :1, :1, :1, :1]).all()
    assert (targets > 0).sum(1).tolist() == [2, 2, 2, 2]


def test_cutmix_cuts_the_same_box_out_of_all_frames():
    labels = torch.arange(4)
    seen = 0
    for step in range(6):
        clips, targets = _mixer(cutmix_alpha=1.0)(_clips(), labels, epoch=0, step=step)
        assert (clips == clips[:, :1, :1]).all()
        for clip, target in zip(clips[:, 0, 0], targets, strict=True):
            shares = [(clip == place).float().mean().item() for place in range(4)]
            assert target.tolist() == pytest.approx(shares)
            seen += max(shares) < 1
    assert seen > 4


def test_draws_depend_on_seed_epoch_and_step_alone():
    mixer = _mixer(mixup_alpha=0.8, cutmix_alpha=1.0)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = mixer(_clips(), LABELS, epoch=2, step=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    again = mixer(_clips(), LABELS, epoch=2, step=3)
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    others = [mixer(_clips(), LABELS, epoch=epoch, step=step) for epoch, step in ((2, 4), (3, 3))]
    others.append(BatchMixer(AugmentConfig(mixup_alpha=0.8), num_classes=4, seed=2)(_clips(), LABELS, epoch=2, step=3))
    assert all(not torch.equal(first[0], other[0]) for other in others)


def test_both_kinds_take_turns():
    mixer = _mixer(mixup_alpha=1.0, cutmix_alpha=1.0)
    clips = [mixer(_clips(), LABELS, epoch=0, step=step)[0] for step in range(20)]
    cut = [bool((clip == clip.round()).all()) for clip in clips]
    assert 4 <= sum(cut) <= 16


def test_share_of_batches():
    mixer = _mixer(mixup_alpha=1.0, mix_prob=0.5)
    mixed = [mixer(_clips(), LABELS, epoch=0, step=step)[1].ndim == 2 for step in range(40)]
    assert 10 <= sum(mixed) <= 30


@pytest.mark.parametrize("settings", [{}, {"mixup_alpha": 1.0, "mix_prob": 0.0}], ids=str)
def test_turned_off(settings):
    clips = _clips()
    result = _mixer(**settings)(clips, LABELS, epoch=0, step=0)
    assert result[0] is clips
    assert result[1] is LABELS


def test_several_labels():
    labels = torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [1, 0, 0, 1]])
    clips, targets = _mixer(mixup_alpha=1.0)(
        labels[:, :, None, None, None].expand(4, 4, 4, 8, 8), labels, epoch=0, step=0
    )
    torch.testing.assert_close(targets, clips[..., 0, 0, 0])
    assert not torch.equal(targets, labels)


def test_a_lone_clip_stays():
    clips, targets = _mixer(mixup_alpha=1.0)(_clips()[:1], LABELS[:1], epoch=0, step=0)
    assert torch.equal(clips, _clips()[:1])
    assert torch.equal(targets, LABELS[:1])


@pytest.mark.parametrize("make", [eval_transform, partial(eval_transform, num_crops=3), train_transform])
def test_clips_may_be_normalised_elsewhere(make):
    frames = _frames(40, 57)
    torch.manual_seed(0)
    clips = make(CLIP, normalize=False)(frames)
    assert clips.dtype == torch.uint8
    torch.manual_seed(0)
    assert torch.equal(normalize_clips(clips, CLIP), make(CLIP)(frames))
    normalised = make(CLIP)(frames)
    assert normalize_clips(normalised, CLIP) is normalised


def test_normalising_is_torchvisions_to_the_last_bit():
    clips = torch.arange(256, dtype=torch.uint8).expand(2, 3, 256).reshape(2, 3, 4, 8, 8)
    steps = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean=list(CLIP.mean), std=list(CLIP.std))])
    expected = steps(clips.transpose(1, 2)).transpose(1, 2)
    assert torch.equal(normalize_clips(clips, CLIP), expected)
