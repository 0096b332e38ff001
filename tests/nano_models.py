"""Models at a small size, the same each time, and clips for them."""

import torch
from torch import nn

import sifa_zoo
from sifa_zoo.models.gated_sifa import GatedSIFA
from sifa_zoo.models.sifa import SIFA
from sifa_zoo.models.sifa_transformer import SIFAMixer

ALL = sifa_zoo.list_models()
NANO = [name for name in ALL if "nano" in name]
SIZE = 64

# Both families and trunks with maps and with tokens -> arguments for a block of each kind, enough for a graph.
SMALL = {
    "sifa_net_nano": {"layers": (1, 2, 1, 1)},
    "sifa_transformer_nano": {"depths": (2, 1), "num_heads": (1, 2)},
    "timm:resnet18": {"sifa_stages": (-2,)},
    "timm:vit_tiny_patch16_224": {"sifa_stages": (-2,)},
}


def build(name, **kwargs):
    torch.manual_seed(0)
    return sifa_zoo.create_model(name, **{"num_classes": 5, "img_size": SIZE, **kwargs})


def with_moving_taps(model):
    """Where training starts, offsets are zero and most of SIFA adds nothing; not so here."""
    for module in model.modules():
        if isinstance(module, SIFA):
            nn.init.normal_(module.conv_offset.weight, std=0.1)
        elif isinstance(module, SIFAMixer):
            nn.init.constant_(module.norm.weight, 0.1)
        elif isinstance(module, GatedSIFA):
            nn.init.constant_(module.gate, 0.1)
    return model


def clip(batch=1, num_frames=8, size=SIZE):
    return torch.randn(batch, 3, num_frames, size, size, generator=torch.Generator().manual_seed(1))
