from __future__ import annotations

import pytest
import torch

from sifa_zoo.config import AugmentConfig
from sifa_zoo.datasets.transforms import BatchMixer

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
