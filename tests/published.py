"""Checkpoints as the published SIFA code writes them, for any model of this project."""

import torch

from sifa_zoo.models import convert


def published(model):
    """A checkpoint in the published names and shapes, with what the published code also stores."""
    is_swin = hasattr(model, "patch_embed")
    checkpoint = {}
    for name, tensor in model.state_dict().items():
        if is_swin and "conv_offset" in name:
            continue
        if name in ("conv1.weight", "patch_embed.proj.weight"):
            tensor = tensor.unflatten(1, (3, 4))
        elif name.endswith(".temporal.conv.weight"):
            tensor = tensor.transpose(2, 3)
        elif tensor.ndim == 4:
            tensor = tensor.unsqueeze(2)
        checkpoint[convert.reference_name(name)] = torch.randn_like(tensor, dtype=torch.float32)
    for name, buffer in model.named_buffers():
        if name.endswith(("attn_mask", "relative_position_index")) and buffer is not None:
            checkpoint[name] = buffer.clone()
    if is_swin:  # names that exist in every block, used or not
        for prefix in ("layers.0.blocks.0", "layers.0.blocks.1"):
            checkpoint.setdefault(f"{prefix}.conv.weight", torch.randn(24, 24, 1, 3))
            checkpoint.setdefault(f"{prefix}.tda_norm.weight", torch.randn(24))
            checkpoint[f"{prefix}.def_cor.weight"] = torch.full((24, 4, 3, 3), 1 / 24)
    else:
        checkpoint["layer2.1.def_cor.weight"] = torch.full((32, 4, 3, 3), 1 / 32)
    return checkpoint
