"""How many operations a forward pass has beyond its trunk's: on a GPU, small ones cost as much as large ones."""

from collections import Counter

import pytest
import timm
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sifa_zoo import create_model

VIEWS = {"_unsafe_view", "detach", "expand", "permute", "select", "slice", "split", "t", "transpose", "unbind", "view"}
VIEWS |= {"as_strided", "alias", "squeeze", "unsqueeze"}


class Launches(TorchDispatchMode):
    """Counts the operations that compute something, by name."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        self.found[name] += name not in VIEWS
        return function(*args, **(kwargs or {}))


def launches(model, inputs, precision):
    with Launches() as counted, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        model.train()(inputs)
    return counted.found


# SIFA-Net: the stem's copy; per block with SIFA saliency, convolution and attention (a cast of the weight in bf16); per
# block with context a mean (on a CPU with a cast), two linear layers and a relu, and one sum for the two additions
# and the relu that end a block. 92 and 132 more than the trunk before these were fused.
@pytest.mark.parametrize(
    ("name", "trunk", "precision", "allowed"),
    [
        ("sifa_net_r50", "resnet50", "fp32", 40),
        ("sifa_net_r50", "resnet50", "bf16", 53),
        ("sifa_transformer_tiny", "swin_tiny_patch4_window7_224", "fp32", 46),
        ("sifa_transformer_tiny", "swin_tiny_patch4_window7_224", "bf16", 58),
    ],
)
def test_launches_beyond_the_trunk(name, trunk, precision, allowed):
    size = {"img_size": 64} if "transformer" in name else {}
    model = create_model(name, num_classes=5, img_size=64, num_frames=8)
    image_model = timm.create_model(trunk, num_classes=5, **size)
    ours = launches(model, torch.zeros(2, 3, 8, 64, 64), precision)
    theirs = launches(image_model, torch.zeros(4, 3, 64, 64), precision)
    assert ours["inter_frame_attention"] == ours["motion_saliency"] > 0
    difference = {name: ours[name] - theirs[name] for name in ours | theirs if ours[name] != theirs[name]}
    assert ours.total() - theirs.total() <= allowed, difference
