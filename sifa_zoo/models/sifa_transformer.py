"""SIFA-Transformer: timm's Swin on frames, with SIFA or a temporal convolution between attention and MLP.

Source: SIFA, CVPR 2022 (https://arxiv.org/abs/2206.06931), section 3.3, and the authors' code for what the paper leaves
open. Names are timm's, so ImageNet weights load by name; what is added to a timm block is its child `temporal`.

The offsets follow the paper: learned, from motion saliency. The published code leaves their convolution commented out,
so its offsets are all zero; as the convolution starts at zero, its checkpoints give the same output here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.models.swin_transformer import (
    SwinTransformer,
    SwinTransformerBlock,
    SwinTransformerStage,
    get_relative_position_index,
)
from torch import Tensor, nn

from sifa_zoo.models.clip_model import STEM_FRAMES, check_num_frames, keep_sizes
from sifa_zoo.models.sifa import SIFA, check_offsets, fold
from sifa_zoo.models.staged_model import Blocks, ClipHead, StagedModel, to_four

_PATCH = 4
_WINDOW = 7


def channels_last(clip: Tensor) -> Tensor:
    """`(B, C, T, H, W)` as `(B, T, H, W, C)`, a view."""
    return clip.permute(0, 2, 3, 4, 1)


def channels_first(clip: Tensor) -> Tensor:
    """`(B, T, H, W, C)` as `(B, C, T, H, W)`, a view."""
    return clip.permute(0, 4, 1, 2, 3)


def to_tokens(clip: Tensor) -> Tensor:
    """A clip `(B, C, T, H, W)` as Swin's frames `(B*T, H, W, C)`, a view."""
    return channels_last(clip).flatten(0, 1)


def to_clip(tokens: Tensor, like: Tensor) -> Tensor:
    """Swin's frames `(B*T, H, W, C)` as a clip `(B, C, T, H, W)` with the B and T of another; a view."""
    return channels_first(tokens.unflatten(0, (like.shape[0], like.shape[2])))


class SIFAMixer(nn.Module):
    """`x + norm(SIFA(x))`; the norm starts at zero, so the block starts as timm's."""

    def __init__(self, dim: int, kernel_size: int, dilation: int, *, offsets: str = "learned") -> None:
        super().__init__()
        self.sifa = SIFA(dim, kernel_size, dilation, offsets=offsets)
        self.norm = nn.LayerNorm(dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as the identity."""
        self.sifa.reset_parameters()
        nn.init.zeros_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)

    def forward(self, clip: Tensor) -> Tensor:
        """`(B, C, T, H, W)` to the same."""
        return clip + channels_first(self.norm(channels_last(self.sifa(clip))))


class TemporalConv(nn.Module):
    """`x + conv(x)` over three neighbouring frames; the convolution starts at zero, so the block starts as timm's."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, (3, 1), padding=(1, 0), bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as the identity."""
        nn.init.zeros_(self.conv.weight)

    def forward(self, clip: Tensor) -> Tensor:
        """`(B, C, T, H, W)` to the same."""
        mixed = self.conv(clip.flatten(3))  # time is the height of an image, a frame its width
        return clip + mixed.view_as(clip)


class ClipSwinBlock(SwinTransformerBlock):
    """timm's `SwinTransformerBlock` for clips, with `temporal` between attention and MLP."""

    def __init__(self, block: Any, temporal: nn.Module | None) -> None:
        nn.Module.__init__(self)
        vars(self).update(vars(block))  # the block that timm has built, under the names that weights have
        self.temporal = temporal

    def forward(self, clip: Tensor) -> Tensor:
        """`(B, C, T, H, W)` to the same."""
        x = to_tokens(clip)
        x = x + self.drop_path1(self._attn(self.norm1(x)))
        if self.temporal is not None:
            x = to_tokens(self.temporal(to_clip(x, clip)))
        x = x + self.drop_path2(self.mlp(self.norm2(x)))
        return to_clip(x, clip)


class ClipSwinStage(SwinTransformerStage):
    """timm's `SwinTransformerStage` for clips."""

    def __init__(self, stage: Any, temporal: Sequence[nn.Module | None]) -> None:
        nn.Module.__init__(self)
        vars(self).update(vars(stage))
        self.blocks = Blocks(
            *(ClipSwinBlock(block, added) for block, added in zip(stage.blocks, temporal, strict=True))
        )

    def forward(self, clip: Tensor) -> Tensor:
        """`(B, C, T, H, W)` to `(B, C', T, H', W')`."""
        if not isinstance(self.downsample, nn.Identity):
            clip = to_clip(self.downsample(to_tokens(clip)), clip)
        return self.blocks(clip)


class SIFATransformer(StagedModel):
    """SIFA-Transformer.

    Even blocks and every block of the last stage have SIFA, the others the temporal convolution, whatever the image
    size. Windows are 7 x 7, or the whole map where that is smaller.

    Args:
        embed_dim: Channels of the first stage; each stage has twice as many as the one before.
        depths: Blocks per stage.
        num_heads: Attention heads per stage.
        num_classes: Classes; 0 gives pooled features.
        in_chans: Channels of a frame.
        num_frames: Frames per clip by default; any multiple of 4 works.
        img_size: Size of the frames, a multiple of 4; `set_input_size` changes it.
        kernel_size: K of SIFA: an int, or four, one per stage.
        dilation: Distance between SIFA's taps, in cells of the feature map.
        offsets: "learned", or for ablations "zero" (a regular grid) or "none" (without SIFA).
        patch_norm: Swin's norm after the patch embedding; the published code has none.
        global_pool: "avg", "max", or "" (with `num_classes=0`).
        drop_rate: Dropout before the classifier.
        attn_drop_rate: Dropout of attention weights.
        drop_path_rate: Stochastic depth at the last block, rising linearly to it.
        device: Where to build, such as "meta".
        dtype: Of the parameters.

    Raises:
        ValueError: If a value is out of range.
    """

    added = (SIFAMixer, TemporalConv)
    patch_embed: Any
    layers: Any

    def __init__(
        self,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        *,
        num_classes: int = 400,
        in_chans: int = 3,
        num_frames: int = 16,
        img_size: int | Sequence[int] = 224,
        kernel_size: int | Sequence[int] = 3,
        dilation: int = 1,
        offsets: str = "learned",
        patch_norm: bool = True,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            num_classes=num_classes, in_chans=in_chans, global_pool=global_pool, drop_path_rate=drop_path_rate
        )
        check_offsets(offsets)
        super().set_input_size(img_size, num_frames)
        with torch.device(device or torch.get_default_device()):
            trunk = SwinTransformer(
                img_size=self.img_size,
                patch_size=_PATCH,
                in_chans=in_chans * STEM_FRAMES,
                num_classes=0,
                embed_dim=embed_dim,
                depths=tuple(depths),
                num_heads=tuple(num_heads),
                window_size=_WINDOW,
                attn_drop_rate=attn_drop_rate,
                drop_path_rate=drop_path_rate,
            )
            self.patch_embed, self.layers, self.norm = trunk.patch_embed, trunk.layers, trunk.norm
            self.num_features = trunk.num_features
            self.feature_info = [{**info, "temporal_reduction": STEM_FRAMES} for info in trunk.feature_info]
            if not patch_norm:
                self.patch_embed.norm = nn.Identity()
            self._add_temporal(to_four(kernel_size, "kernel_size"), dilation, offsets=offsets)
            self.head = ClipHead(self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.to(dtype=dtype)

    def _add_temporal(self, kernel_size: tuple[int, ...], dilation: int, *, offsets: str) -> None:
        for index, stage in enumerate(self.layers):
            last = index == len(self.layers) - 1
            temporal: list[nn.Module | None] = []
            for i, block in enumerate(stage.blocks):
                dim = block.norm1.normalized_shape[0]
                if i % 2 and not last:
                    temporal.append(TemporalConv(dim))
                elif offsets == "none":
                    temporal.append(None)
                else:
                    temporal.append(SIFAMixer(dim, kernel_size[index], dilation, offsets=offsets))
            self.layers[index] = ClipSwinStage(stage, temporal)

    def stage(self, index: int, clip: Tensor) -> Tensor:
        if index == 0:
            clip = keep_sizes(clip, img_size=self.img_size)
            clip = to_clip(self.patch_embed(fold(clip)), clip)
        stage: ClipSwinStage = self.layers[index]
        return stage(clip)

    def finish(self, clip: Tensor) -> Tensor:
        return channels_first(self.norm(channels_last(clip)))

    def check_input(self, clip: Tensor) -> None:
        super().check_input(clip)
        if tuple(clip.shape[3:]) != self.img_size:
            size = tuple(clip.shape[3:])
            raise ValueError(
                f"the model is set to frames of {self.img_size}, got {size}; set_input_size(img_size={size})"
            )

    def check_size(self, img_size: tuple[int, ...], num_frames: int) -> None:
        check_num_frames(num_frames)
        if min(img_size) < 32 or any(side % _PATCH for side in img_size):
            raise ValueError(
                f"img_size must be a multiple of {_PATCH}, at least 32, in height and width, got {img_size}"
            )

    def set_input_size(self, img_size: int | Sequence[int] | None = None, num_frames: int | None = None) -> None:
        """Set the input size; position tables are resized where the windows change."""
        before = self.img_size
        super().set_input_size(img_size, num_frames)
        if self.img_size == before:
            return
        self.patch_embed.set_input_size(img_size=self.img_size)
        feat_size = tuple(self.patch_embed.grid_size)
        for stage in self.layers:
            stage.set_input_size(feat_size=feat_size, window_size=(_WINDOW, _WINDOW))
            feat_size = tuple(stage.output_resolution)

    def init_non_persistent_buffers(self) -> None:
        """Swin's masks and position indices, on the device of the parameters."""
        for stage in self.layers:
            for block in stage.blocks:
                like = block.norm1.weight
                block.register_buffer("attn_mask", block.get_attn_mask(device=like.device, dtype=like.dtype), False)
                height, width = block.attn.window_size
                index = get_relative_position_index(height, width, device=like.device)
                block.attn.register_buffer("relative_position_index", index, False)

    def no_weight_decay(self) -> set[str]:
        """The relative position tables."""
        return {name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Regular expressions that group parameters by depth, for layer decay."""
        blocks = [(r"^layers\.(\d+).downsample", (0,)), (r"^layers\.(\d+)\.blocks\.(\d+)", None), (r"^norm", (99999,))]
        return {"stem": r"^patch_embed", "blocks": r"^layers\.(\d+)" if coarse else blocks}

    def _drop_stages(self, keep: int) -> None:
        self.layers = self.layers[:keep]

    def _drop_norm(self) -> None:
        self.norm = nn.Identity()


def sifa_transformer_nano(**kwargs: Any) -> SIFATransformer:
    """SIFA-Transformer with a quarter of tiny's width: for tests, demos and small data."""
    variant = {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8), "drop_path_rate": 0.0}
    return SIFATransformer(**{**variant, "img_size": 112, **kwargs})


def sifa_transformer_tiny(**kwargs: Any) -> SIFATransformer:
    """SIFA-Transformer on Swin-Tiny; the paper has none of this size."""
    variant = {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "drop_path_rate": 0.2}
    return SIFATransformer(**{**variant, **kwargs})


def sifa_transformer_small(**kwargs: Any) -> SIFATransformer:
    """SIFA-Transformer on Swin-Small, `c2d_sifa_swin_vit_s_p4_w7` of the published code."""
    variant = {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24), "drop_path_rate": 0.3}
    return SIFATransformer(**{**variant, **kwargs})


def sifa_transformer_base(**kwargs: Any) -> SIFATransformer:
    """SIFA-Transformer on Swin-Base, `c2d_sifa_swin_vit_b_p4_w7` of the published code."""
    variant = {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32), "drop_path_rate": 0.5}
    return SIFATransformer(**{**variant, **kwargs})


def sifa_transformer_large(**kwargs: Any) -> SIFATransformer:
    """SIFA-Transformer on Swin-Large, `c2d_sifa_swin_vit_l_p4_w7` of the published code."""
    variant = {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48), "drop_path_rate": 0.5}
    return SIFATransformer(**{**variant, **kwargs})
