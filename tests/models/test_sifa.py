"""The SIFA block."""

import pytest
import torch

from sifa_zoo.models.sifa import SIFA, motion_saliency


@pytest.mark.parametrize("shape", [(1, 1, 1, 3, 2), (1, 1, 4, 2, 2), (2, 3, 5, 2, 3)])
def test_motion_saliency_equals_a_loop(shape):
    clip = torch.randn(shape)
    frames = [clip[:, :, t] * (1 + torch.sigmoid(clip[:, :, t] - clip[:, :, t - 1])) for t in range(1, shape[2])]
    expected = torch.stack(frames, dim=2) if frames else clip[:, :, 1:]
    before = clip.clone()
    torch.testing.assert_close(motion_saliency(clip), expected)
    assert torch.equal(clip, before)


def test_still_clips_have_no_salient_place():
    clip = torch.randn(1, 2, 1, 3, 3).expand(-1, -1, 4, -1, -1)
    torch.testing.assert_close(motion_saliency(clip), 1.5 * clip[:, :, 1:])


@pytest.mark.parametrize("num_steps", [1, 3])
def test_clips_of_a_batch_do_not_meet(num_steps):
    sifa = SIFA(4)
    torch.nn.init.normal_(sifa.conv_offset.weight)
    clips = torch.randn(2, 4, num_steps, 5, 6).to(memory_format=torch.channels_last_3d)
    both = sifa(clips)
    apart = torch.cat([sifa(clip) for clip in clips.split(1)])
    torch.testing.assert_close(both, apart)
    assert not both[:, :, -1].any()  # no frame follows the last one
    assert both.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"offsets": "lerned"}, "offsets must be 'learned' or 'zero', got 'lerned'"),
        ({"offsets": "none"}, "offsets must be 'learned' or 'zero', got 'none'"),  # a model leaves the block out then
        ({"kernel_size": 0}, "at least 1, got kernel_size = 0"),
        ({"dilation": 0}, "at least 1, got .*dilation = 0"),
        ({"kernel_size": (3, 3)}, r"must be ints of at least 1, got kernel_size = \(3, 3\)"),
    ],
)
def test_wrong_arguments_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        SIFA(4, **arguments)
