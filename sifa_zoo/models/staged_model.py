"""A model whose blocks take clips: stages in a row, a head, and what timm's contract asks of them.

Features are clips `(B, C, T', H, W)`, in memory channels last. Blocks and stages are modules that take a clip and
return one, so how many time steps there are is in its shape. Inside of them time is folded into the batch, and every 2D
layer is timm's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.models._manipulate import checkpoint_seq
from torch import Tensor, nn

from sifa_zoo.models.clip_model import ClipModel, check_output_fmt, stack_frames, take_indices

_POOLS = ("avg", "max", "")


def to_four(value: int | Sequence[int], name: str) -> tuple[int, ...]:
    """One positive value per stage, from an int or four."""
    values = (value,) * 4 if isinstance(value, int) else tuple(value)
    if len(values) != 4 or min(values) < 1:
        raise ValueError(f"{name} must be a positive int or four of them, one per stage, got {value!r}")
    return values


class Blocks(nn.Sequential):
    """Blocks in a row; while `grad_checkpointing` is on, each is computed again in backward."""

    grad_checkpointing = False

    def forward(self, clip: Tensor) -> Tensor:
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint_seq(self, clip)
        return super().forward(clip)


class ClipHead(nn.Module):
    """Pool a feature map `(B, C, T', H', W')` over time and space, drop out, classify."""

    def __init__(self, in_features: int, num_classes: int, *, pool_type: str = "avg", drop_rate: float = 0.0) -> None:
        super().__init__()
        if not 0 <= drop_rate < 1:
            raise ValueError(f"drop_rate must be in [0, 1), got {drop_rate}")
        self.in_features = in_features
        self.drop = nn.Dropout(drop_rate)
        self.pool_type = pool_type
        self.reset(num_classes)

    def reset(self, num_classes: int, pool_type: str | None = None) -> None:
        """Replace the classifier, and the pooling too unless `pool_type` is None."""
        pool_type = self.pool_type if pool_type is None else pool_type
        if pool_type not in _POOLS:
            raise ValueError(f"global_pool must be one of {_POOLS}, got {pool_type!r}")
        if num_classes < 0:
            raise ValueError(f"num_classes must not be negative, got {num_classes = }")
        if num_classes > 0 and not pool_type:
            raise ValueError("a classifier needs pooling: pass global_pool='avg' or 'max', or num_classes=0")
        self.pool_type = pool_type
        self.fc: nn.Module = nn.Identity()
        if num_classes > 0:
            self.fc = linear = nn.Linear(self.in_features, num_classes)
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, *, pre_logits: bool = False) -> Tensor:
        if not self.pool_type:
            return x
        x = x.mean((2, 3, 4)) if self.pool_type == "avg" else x.amax((2, 3, 4))
        x = self.drop(x)
        return x if pre_logits else self.fc(x)


class StagedModel(ClipModel):
    """A model of stages.

    A family provides `stage(index, clip)` for each entry of `feature_info` (stage 0 takes the stacked frames, the stem
    is in it), `finish(clip)` (a final norm) and `check_size(img_size, num_frames)`.
    """

    head: ClipHead

    def __init__(self, *, num_classes: int, in_chans: int, global_pool: str, drop_path_rate: float) -> None:
        super().__init__(num_classes=num_classes, in_chans=in_chans)
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f"drop_path_rate must be in [0, 1), got {drop_path_rate}")
        self.global_pool = global_pool
        self.grad_checkpointing = False

    def stage(self, index: int, clip: Tensor) -> Tensor:
        """From one feature map to the next."""
        raise NotImplementedError

    def finish(self, clip: Tensor) -> Tensor:
        """The last feature map, normed."""
        return clip

    def forward_features(self, x: Tensor) -> Tensor:
        """The last feature map `(B, num_features, T', H', W')`."""
        x = self._enter(x)
        for index in range(len(self.feature_info)):
            x = self.stage(index, x)
        return self.finish(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits, or with `pre_logits` the pooled features `(B, head_hidden_size)`, of a last feature map."""
        return self.head(x, pre_logits=pre_logits)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCTHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Feature maps `(B, C, T', H', W')` of some stages, as timm's models of images give them.

        Args:
            x: Clips `(B, C, T, H, W)`.
            indices: Stages, by number in `feature_info`; an int takes the last n, None all.
            norm: Apply the final norm to the last stage's map.
            stop_early: Leave after the last stage that was asked for.
            output_fmt: "NCTHW" ("NCHW" from timm's own wrappers means the same).
            intermediates_only: Do not return the last map.

        Returns:
            The maps asked for; before them, unless `intermediates_only`, what `forward_features` returns (with
            `stop_early` that of the last stage that ran).
        """
        check_output_fmt(output_fmt)
        total = len(self.feature_info)
        taken, last = take_indices(indices, total)
        x = self._enter(x)
        intermediates = []
        for index in range(last + 1 if stop_early or intermediates_only else total):
            x = self.stage(index, x)
            if index in taken:
                intermediates.append(self.finish(x) if norm and index == total - 1 else x)
        if intermediates_only:
            return intermediates
        return self.finish(x) if index == total - 1 else x, intermediates

    def _enter(self, clip: Tensor) -> Tensor:
        self.check_input(clip)
        return stack_frames(clip)

    def step_features(self, x: Any) -> Tensor:
        """Pooled features `(B, T', num_features)` of each time step, of the last features (of the main branch)."""
        first = x[0] if isinstance(x, tuple) else x
        steps = first.amax((3, 4)) if self.global_pool == "max" else first.mean((3, 4))
        return steps.transpose(1, 2)

    @property
    def head_hidden_size(self) -> int:
        """Width of the pre-logits."""
        return self.num_features

    def get_classifier(self) -> nn.Module:
        """The classifier."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier; None keeps the pooling.

        0 classes give pooled features, and with `global_pool=''` the feature map.
        """
        like = next(self.parameters())
        for head in self._heads():
            head.reset(num_classes, global_pool)
            head.to(like.device, like.dtype).train(self.training)
        self.global_pool = self.head.pool_type
        self.count_classes(num_classes)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade compute for memory: recompute each block in backward."""
        self.grad_checkpointing = enable
        for module in self.modules():
            if isinstance(module, Blocks):
                module.grad_checkpointing = enable

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what the feature maps `indices` do not need; returns `indices` counted from the front."""
        taken, last = take_indices(indices, len(self.feature_info))
        shortened = last < len(self.feature_info) - 1
        self._drop_stages(last + 1)
        self.feature_info = self.feature_info[: last + 1]
        if prune_norm or shortened:
            self._drop_norm()
        if prune_head or shortened:
            self.num_features = self.feature_info[last]["num_chs"]
            self._drop_heads()
        return taken

    def _heads(self) -> list[ClipHead]:
        return [self.head]

    def _drop_stages(self, keep: int) -> None:
        raise NotImplementedError

    def _drop_norm(self) -> None:
        pass

    def _drop_heads(self) -> None:
        self.reset_classifier(0, "")
        self.head.in_features = self.num_features
