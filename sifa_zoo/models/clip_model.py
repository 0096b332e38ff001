"""What both families share: the input clip, the head, and timm's model contract for clips.

The stem sees four frames stacked in the channels (channel `c*4 + t`), which equals a 3D convolution with temporal
kernel and stride 4. From there on features are clips `(B, C, T', H, W)` of T' = T/4 time steps, in memory
channels last.
Blocks and stages are modules that take a clip and return one, so how many time steps there are is in its shape. Inside
of them time is folded into the batch, and every 2D layer is timm's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.models._features import feature_take_indices
from timm.models._manipulate import checkpoint_seq
from torch import Tensor, nn

from sifa_zoo.ops import check_backend

STEM_FRAMES = 4
_POOLS = ("avg", "max", "")


def check_num_frames(num_frames: int, *, at_least: int = STEM_FRAMES) -> None:
    """Raise ValueError unless the stem and the model can take that many frames."""
    if num_frames < at_least or num_frames % STEM_FRAMES:
        allowed = f"a multiple of {STEM_FRAMES}, at least {at_least}"
        raise ValueError(f"num_frames must be {allowed}, got {num_frames = }")


def to_size(img_size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width from an int or a pair."""
    size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    if len(size) != 2 or not all(isinstance(side, int) for side in size):
        raise ValueError(f"img_size must be an int or a pair of ints, got {img_size!r}")
    return size


def to_four(value: int | Sequence[int], name: str) -> tuple[int, ...]:
    """One positive value per stage, from an int or four."""
    values = (value,) * 4 if isinstance(value, int) else tuple(value)
    if len(values) != 4 or min(values) < 1:
        raise ValueError(f"{name} must be a positive int or four of them, one per stage, got {value!r}")
    return values


def stack_frames(clip: Tensor) -> Tensor:
    """`(B, C, T, H, W)` to `(B, C*4, T/4, H, W)`, four frames in the channels: channel `c*4 + t`.

    In memory time comes before channels: whole planes are copied, and frames can be folded into the batch. Convolutions
    with channels_last weights bring their own order.
    """
    stacked = clip.unflatten(2, (-1, STEM_FRAMES)).transpose(1, 2)  # (B, T', C, 4, H, W)
    return stacked.flatten(2, 3).contiguous().transpose(1, 2)


def take_indices(indices: int | Sequence[int] | None, total: int) -> tuple[list[int], int]:
    """The stages asked for, counted from the front, and the last of them."""
    if isinstance(indices, int):
        valid = 1 <= indices <= total
    else:
        valid = indices is None or (len(indices) > 0 and all(-total <= index < total for index in indices))
    if not valid:
        raise ValueError(f"indices must be within {total} stages (an int takes the last n), got {indices!r}")
    return feature_take_indices(total, indices if indices is None or isinstance(indices, int) else list(indices))


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


class ClipModel(nn.Module):
    """timm's model contract for clips `(B, C, T, H, W)` in float, normalised as `pretrained_cfg` says.

    A family provides `stage(index, clip)` for each entry of `feature_info` (stage 0 takes the stacked frames, the stem
    is in it), `finish(clip)` (a final norm) and `check_size(img_size, num_frames)`.
    """

    img_size: tuple[int, int]
    num_frames: int
    num_features: int
    feature_info: list[dict[str, Any]]
    pretrained_cfg: dict[str, Any]
    head: ClipHead
    added: tuple[type[nn.Module], ...] = ()  # what a family adds to its trunk; each has `reset_parameters`

    def __init__(self, *, num_classes: int, in_chans: int, global_pool: str, drop_path_rate: float) -> None:
        super().__init__()
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f"drop_path_rate must be in [0, 1), got {drop_path_rate}")
        if in_chans < 1:
            raise ValueError(f"in_chans must be at least 1, got {in_chans = }")
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.global_pool = global_pool
        self.grad_checkpointing = False
        self.pretrained_cfg = {}

    # What a family defines

    def stage(self, index: int, clip: Tensor) -> Tensor:
        raise NotImplementedError

    def finish(self, clip: Tensor) -> Tensor:
        return clip

    def check_size(self, img_size: tuple[int, ...], num_frames: int) -> None:
        """Raise ValueError unless the model works at this size."""
        raise NotImplementedError

    def check_input(self, clip: Tensor) -> None:
        """Raise ValueError unless the model can take this clip."""
        if clip.ndim != 5 or clip.shape[1] != self.in_chans:
            swapped = clip.ndim == 5 and clip.shape[2] == self.in_chans
            hint = "; it has frames before channels: pass clip.transpose(1, 2)" if swapped else ""
            raise ValueError(f"the model takes clips (B, {self.in_chans}, T, H, W), got {tuple(clip.shape)}{hint}")
        check_num_frames(clip.shape[2])
        if not clip.is_floating_point():
            raise ValueError(f"the model takes normalised floating-point clips, got {clip.dtype}")

    # The forward pass

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, num_classes)` for clips `(B, C, T, H, W)`."""
        return self.forward_head(self.forward_features(x))

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
        if str(getattr(output_fmt, "value", output_fmt)) not in ("NCTHW", "NCHW"):
            raise ValueError(f"output_fmt must be 'NCTHW', got {output_fmt!r}")
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

    # The rest of timm's contract

    @property
    def default_cfg(self) -> dict[str, Any]:
        """timm's older name for `pretrained_cfg`."""
        return self.pretrained_cfg

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
        self.num_classes = num_classes
        self.global_pool = self.head.pool_type
        known = {key: value for key, value in self.pretrained_cfg.items() if key != "label_names"}
        self.pretrained_cfg = known | {"num_classes": num_classes}

    def set_input_size(self, img_size: int | Sequence[int] | None = None, num_frames: int | None = None) -> None:
        """Set the default input size; None leaves it."""
        size = self.img_size if img_size is None else to_size(img_size)
        frames = self.num_frames if num_frames is None else num_frames
        self.check_size(size, frames)
        self.img_size, self.num_frames = size, frames

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade compute for memory: recompute each block in backward."""
        self.grad_checkpointing = enable
        for module in self.modules():
            if isinstance(module, Blocks):
                module.grad_checkpointing = enable

    def init_added(self, device: torch.device | str) -> None:
        """Initialise what a 2D checkpoint of the trunk lacks, in a model on the meta device."""
        for module in self.modules():
            if isinstance(module, self.added):
                module.to_empty(device=device).reset_parameters()  # type: ignore[operator]

    def init_non_persistent_buffers(self) -> None:
        """Compute the buffers that no checkpoint holds, on the device of the parameters."""

    def set_backend(self, backend: str = "auto") -> None:
        """Choose how the package's operators run, as in `inter_frame_attention`; "torch" for ONNX."""
        check_backend(backend)
        for module in self.modules():
            if hasattr(module, "backend"):
                module.backend = backend  # type: ignore[assignment]

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay would hurt."""
        return set()

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
