"""SIFA-Net: timm's ResNet on frames, with SIFA after the 3x3 convolution of every second block.

Source: SIFA, CVPR 2022 (https://arxiv.org/abs/2206.06931), section 3.3, and the authors' code for what the paper leaves
open. Names are timm's, so ImageNet weights load by name. In timm's `Bottleneck` SIFA takes the place of `aa`, the
global-context path of the published code that of `se`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import DropPath
from timm.models.resnet import Bottleneck, ResNet, downsample_conv
from torch import Tensor, nn
from torch.nn import functional as F

from sifa_zoo.models.clip_model import STEM_FRAMES, check_num_frames, take_indices
from sifa_zoo.models.sifa import SIFA, check_offsets, fold, unfold
from sifa_zoo.models.staged_model import Blocks, ClipHead, StagedModel, to_four
from sifa_zoo.ops import add_context

_MIN_SIZE = 32  # the trunk's stride: less than one cell would be left
_DUAL_MIN_FRAMES = 8


class GlobalContext(nn.Module):
    """Mean over time and space, then two linear layers: one vector per clip, to be added to each of its frames.

    The few numbers that are left after the mean are not worth the casts of autocast.
    """

    def __init__(self, dim: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, dim // reduction)
        self.fc2 = nn.Linear(dim // reduction, dim)
        self.backend = "auto"

    def reset_parameters(self) -> None:
        """Draw new weights."""
        self.fc1.reset_parameters()
        self.fc2.reset_parameters()

    def forward(self, clip: Tensor) -> Tensor:
        """`(B, C, T, H, W)` to `(B, C)`."""
        dtype = self.fc1.weight.dtype
        with torch.autocast("cpu" if clip.is_meta else clip.device.type, enabled=False):
            # A CPU would make a wider copy of all frames for a mean of another dtype, a GPU does both in one pass.
            mean = clip.mean((2, 3, 4), dtype=dtype if clip.is_cuda else None)
            return self.fc2(F.relu(self.fc1(mean.to(dtype))))


class ClipBottleneck(Bottleneck):
    """timm's `Bottleneck` for clips, with SIFA as its `aa` and global context as its `se`."""

    aa: SIFA | nn.Module | None
    se: GlobalContext | None  # type: ignore[assignment]

    def __init__(self, block: Any) -> None:
        nn.Module.__init__(self)
        vars(self).update(vars(block))  # the block that timm has built, under the names that weights have
        self.aa = self.se = None

    def forward(self, clip: Tensor) -> Tensor:
        """`(B, C, T, H, W)` to `(B, C', T, H', W')`."""
        x = fold(clip)
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.act2(self.bn2(self.conv2(x)))
        if self.aa is not None:
            x = fold(self.aa(unfold(x, clip), residual=True))
        x = self.bn3(self.conv3(x))
        if self.se is not None:
            context = self.se(unfold(x, clip))
            if self.drop_path is None:
                return unfold(add_context(x, context, shortcut, backend=self.se.backend), clip)
            x = x + context.repeat_interleave(clip.shape[2], dim=0)[:, :, None, None]
        if self.drop_path is not None:
            x = self.drop_path(x)
        x += shortcut
        return unfold(self.act3(x), clip)


class SIFANet(StagedModel):
    """SIFA-Net.

    Args:
        layers: Blocks per stage.
        channels: Width of the 3x3 convolution per stage; a stage outputs four times as many channels.
        num_classes: Classes; 0 gives pooled features.
        in_chans: Channels of a frame.
        num_frames: Frames per clip by default; any multiple of 4 works.
        img_size: Size of the frames by default; any from 32 works.
        kernel_size: K of SIFA: an int, or four, one per stage (the first stage has none).
        dilation: Distance between SIFA's taps, in pixels of the feature map.
        offsets: "learned", or for ablations "zero" (a regular grid) or "none" (without SIFA).
        stem_type: timm's: "" for one 7x7 convolution to 64 channels, as published; "deep" for three of 3x3.
        stem_width: Channels inside a deep stem, which outputs twice as many.
        global_context: Whether to add the published code's global-context path to the blocks between those with SIFA.
        dual_head: Whether to add the published code's second branch, on every other time step; the paper has none.
        global_pool: "avg", "max", or "" (with `num_classes=0`).
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth at the last block, rising linearly to it.
        device: Where to build, such as "meta".
        dtype: Of the parameters.

    Raises:
        ValueError: If a value is out of range.
    """

    added = (SIFA, GlobalContext)
    layer2: Any
    layer3: Any
    layer4: Any

    def __init__(
        self,
        layers: Sequence[int] = (3, 4, 6, 3),
        channels: Sequence[int] = (64, 128, 256, 512),
        *,
        num_classes: int = 400,
        in_chans: int = 3,
        num_frames: int = 16,
        img_size: int | Sequence[int] = 224,
        kernel_size: int | Sequence[int] = 3,
        dilation: int = 1,
        offsets: str = "learned",
        stem_type: str = "",
        stem_width: int = 64,
        global_context: bool = True,
        dual_head: bool = False,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            num_classes=num_classes, in_chans=in_chans, global_pool=global_pool, drop_path_rate=drop_path_rate
        )
        check_offsets(offsets)
        self.dual_head = dual_head
        self.dual_training = False
        self.set_input_size(img_size, num_frames)
        with torch.device(device or torch.get_default_device()):
            trunk = ResNet(
                Bottleneck,  # type: ignore[arg-type]  # timm annotates an instance and takes the class
                tuple(layers),
                num_classes=0,
                in_chans=in_chans * STEM_FRAMES,
                channels=tuple(channels),
                stem_type=stem_type,
                stem_width=stem_width,
                drop_path_rate=drop_path_rate,
            )
            self.conv1, self.bn1, self.act1, self.maxpool = trunk.conv1, trunk.bn1, trunk.act1, trunk.maxpool
            for stage in ("layer1", "layer2", "layer3", "layer4"):
                setattr(self, stage, Blocks(*map(ClipBottleneck, getattr(trunk, stage))))
            self.num_features = trunk.num_features
            self.feature_info = [{**info, "temporal_reduction": STEM_FRAMES} for info in trunk.feature_info]
            if dual_head:
                self.layer4_dual = _dual_stage(self.layer4, channels[3])
            self._add_sifa(to_four(kernel_size, "kernel_size"), dilation, offsets=offsets, context=global_context)
            self.head = ClipHead(self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate)
            if dual_head:
                self.head_dual = ClipHead(self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.to(dtype=dtype)

    def _add_sifa(self, kernel_size: tuple[int, ...], dilation: int, *, offsets: str, context: bool) -> None:
        stages = [(self.layer2, 1), (self.layer3, 2), (self.layer4, 3)]
        if self.dual_head:
            stages.append((self.layer4_dual, 3))
        for blocks, index in stages:
            for i, block in enumerate(blocks):
                if i % 2 and offsets != "none":
                    block.aa = SIFA(block.conv2.out_channels, kernel_size[index], dilation, offsets=offsets)
                elif i % 2 == 0 and context:
                    block.se = GlobalContext(block.conv3.out_channels)

    def stage(self, index: int, clip: Tensor) -> Tensor:
        if index == 0:
            return unfold(self.act1(self.bn1(self.conv1(fold(clip)))), clip)
        if index == 1:
            clip = unfold(self.maxpool(fold(clip)), clip)
        blocks: Blocks = getattr(self, f"layer{index}")
        return blocks(clip)

    def check_input(self, clip: Tensor) -> None:
        super().check_input(clip)
        self.check_size(clip.shape[3:], clip.shape[2])

    def check_size(self, img_size: tuple[int, ...], num_frames: int) -> None:
        check_num_frames(num_frames, at_least=_DUAL_MIN_FRAMES if self.dual_head else STEM_FRAMES)
        if min(img_size) < _MIN_SIZE:
            raise ValueError(f"height and width must be at least {_MIN_SIZE}, got {tuple(img_size)}")

    def forward_features(self, x: Tensor) -> Any:
        """The last map `(B, C, T', H', W')`; with `dual_head` also the second branch's `(B, C, T'/2, 2H', 2W')`."""
        if not self.dual_head:
            return super().forward_features(x)
        last, (layer3,) = super().forward_intermediates(x, [3])
        return last, self._second_branch(layer3)

    def forward_intermediates(self, x: Tensor, indices: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """As `StagedModel.forward_intermediates`; of two branches only the main one has intermediates."""
        if not self.dual_head or kwargs.get("intermediates_only") or kwargs.get("stop_early"):
            return super().forward_intermediates(x, indices, **kwargs)
        taken, _ = take_indices(indices, 5)
        last, maps = super().forward_intermediates(x, None, **kwargs)
        return (last, self._second_branch(maps[3])), [maps[index] for index in sorted(taken)]

    def _second_branch(self, layer3: Tensor) -> Tensor:
        """The map `(B, C, T'/2, H, W)` of the published second branch, from that of `layer3`."""
        return self.layer4_dual(F.max_pool3d(layer3, (2, 1, 1)))

    def forward_head(self, x: Any, pre_logits: bool = False) -> Any:
        """Logits of a feature map.

        With `dual_head`, for both maps: the log of the mean of the two softmaxes, whose softmax is the published score;
        in training after `set_dual_training(True)` both logits; with `pre_logits` both pooled features side by side.
        """
        if not self.dual_head:
            return self.head(x, pre_logits=pre_logits)
        main, dual = self.head(x[0], pre_logits=pre_logits), self.head_dual(x[1], pre_logits=pre_logits)
        if not self.global_pool:
            return main, dual
        if pre_logits or self.num_classes == 0:
            return torch.cat([main, dual], dim=1)
        if self.dual_training and self.training:
            return main, dual
        return torch.logaddexp(main.log_softmax(1), dual.log_softmax(1)) - math.log(2)

    def set_dual_training(self, enable: bool = True) -> None:
        """In train mode let `forward` return the logits of both heads; the loss is the sum over heads."""
        if enable and not self.dual_head:
            raise ValueError("the model has one head; build it with dual_head=True for two")
        self.dual_training = enable

    @property
    def head_hidden_size(self) -> int:
        """Width of the pre-logits, of both heads together where there are two."""
        return self.num_features * (2 if self.dual_head else 1)

    def get_classifier(self) -> Any:
        """The classifier; with `dual_head` both."""
        return (self.head.fc, self.head_dual.fc) if self.dual_head else self.head.fc

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Regular expressions that group parameters by depth, for layer decay."""
        blocks = r"^layer(\d+)" if coarse else r"^layer(\d+)(?:_dual)?\.(\d+)"
        return {"stem": r"^conv1|^bn1", "blocks": blocks}

    def _heads(self) -> list[ClipHead]:
        return [self.head, self.head_dual] if self.dual_head else [self.head]

    def _drop_stages(self, keep: int) -> None:
        for index in range(keep, len(self.feature_info)):
            delattr(self, f"layer{index}")

    def _drop_heads(self) -> None:
        if self.dual_head:
            del self.layer4_dual, self.head_dual
            self.dual_head = self.dual_training = False
        super()._drop_heads()


def _dual_stage(layer4: Any, planes: int) -> Blocks:
    """The blocks of `layer4` once more, with stride 1, initialised as timm's ResNet does."""
    in_channels = layer4[0].conv1.in_channels
    blocks = []
    for i, block in enumerate(layer4):
        width = in_channels if i == 0 else planes * Bottleneck.expansion
        shortcut = downsample_conv(width, planes * Bottleneck.expansion, kernel_size=1) if i == 0 else None
        drop_path = DropPath(block.drop_path.drop_prob) if block.drop_path is not None else None
        blocks.append(Bottleneck(width, planes, downsample=shortcut, drop_path=drop_path))
    stage = nn.Sequential(*blocks)
    ResNet.init_weights(stage)  # type: ignore[arg-type]  # it asks for a module's convolutions and blocks, no more
    return Blocks(*map(ClipBottleneck, blocks))


def sifa_net_nano(**kwargs: Any) -> SIFANet:
    """SIFA-Net with a quarter of the width, half of the blocks and a deep stem: for tests, demos and small data."""
    variant = {"layers": (2, 2, 2, 2), "channels": (16, 32, 64, 128), "stem_type": "deep", "stem_width": 16}
    return SIFANet(**{**variant, "img_size": 112, **kwargs})


def sifa_net_r50(**kwargs: Any) -> SIFANet:
    """SIFA-Net on ResNet-50, `c2d_sifa_resnet50` of the published code."""
    return SIFANet(**{"layers": (3, 4, 6, 3), **kwargs})


def sifa_net_r101(**kwargs: Any) -> SIFANet:
    """SIFA-Net on ResNet-101, `c2d_sifa_resnet101` of the published code."""
    return SIFANet(**{"layers": (3, 4, 23, 3), **kwargs})
