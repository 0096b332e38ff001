"""The fixed clip and its logits."""

import torch

import sifa_zoo
from sifa_zoo.publishing.fixed_clip import STORED_LOGITS, first_logits, fixed_clip


def test_the_fixed_clip_is_the_same_everywhere():
    clip = fixed_clip(
        sifa_zoo.create_model("sifa_net_nano", num_frames=8, img_size=(32, 48), in_chans=2, device="meta")
    )
    assert clip.shape == (1, 2, 8, 32, 48)
    torch.testing.assert_close(clip.flatten()[:3], torch.tensor([1.7640524, 0.4001572, 0.978738]))


def test_the_mode_of_a_model_outlives_its_first_logits():
    model = sifa_zoo.create_model("sifa_net_nano.motion")
    logits = first_logits(model)
    assert len(logits) == STORED_LOGITS
    assert model.training
    assert first_logits(model.eval()) == logits
    assert not model.training
