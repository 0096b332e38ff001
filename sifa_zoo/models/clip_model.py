"""What all models share: the input clip, and the part of timm's model contract that does not depend on the trunk.

The stem sees four frames stacked in the channels (channel `c*4 + t`), which equals a 3D convolution with temporal
kernel and stride 4. From there on there are T' = T/4 time steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from sifa_zoo.ops import check_backend

STEM_FRAMES = 4
_CENTRE_FRAME = 2  # of the four that the stem sees: where inflation puts the 2D kernel


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


def stack_frames(clip: Tensor) -> Tensor:
    """`(B, C, T, H, W)` to `(B, C*4, T/4, H, W)`, four frames in the channels: channel `c*4 + t`.

    In memory time comes before channels: whole planes are copied, and frames can be folded into the batch. Convolutions
    with channels_last weights bring their own order.
    """
    num_steps = clip.shape[2] // STEM_FRAMES
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        clip = clip[:, :, : num_steps * STEM_FRAMES]  # all of it; where T is a symbol, four is a number only then
    stacked = clip.unflatten(2, (num_steps, STEM_FRAMES)).transpose(1, 2)  # (B, T', C, 4, H, W)
    return stacked.flatten(2, 3).contiguous().transpose(1, 2)


def keep_sizes(clip: Tensor, *, num_frames: int = -1, img_size: tuple[int, int] = (-1, -1)) -> Tensor:
    """The clip itself; in a traced graph, which has lost all checks, an error at other sizes than these."""
    return clip.expand(-1, -1, num_frames, *img_size) if torch.jit.is_tracing() else clip


def stack_kernel(kernel: Tensor) -> Tensor:
    """A kernel `(out, C, h, w)` for one frame as one `(out, C*4, h, w)` for four, zero but for the third of them."""
    frames = kernel.new_zeros(*kernel.shape[:2], STEM_FRAMES, *kernel.shape[2:])
    frames[:, :, _CENTRE_FRAME] = kernel
    return frames.flatten(1, 2)


def take_indices(indices: int | Sequence[int] | None, total: int) -> tuple[list[int], int]:
    """The stages asked for, counted from the front, and the last of them."""
    if isinstance(indices, int):
        valid = 1 <= indices <= total
    else:
        valid = indices is None or (len(indices) > 0 and all(-total <= index < total for index in indices))
    if not valid:
        raise ValueError(f"indices must be within {total} stages (an int takes the last n), got {indices!r}")
    return feature_take_indices(total, indices if indices is None or isinstance(indices, int) else list(indices))


def check_output_fmt(output_fmt: Any) -> None:
    """Raise ValueError unless feature maps are asked for as `(B, C, T', H', W')`."""
    if str(getattr(output_fmt, "value", output_fmt)) not in ("NCTHW", "NCHW"):
        raise ValueError(f"output_fmt must be 'NCTHW', got {output_fmt!r}")


class ClipModel(nn.Module):
    """timm's model contract for clips `(B, C, T, H, W)` in float, normalised as `pretrained_cfg` says."""

    img_size: tuple[int, int]
    num_frames: int
    num_features: int
    global_pool: str
    feature_info: list[dict[str, Any]]
    pretrained_cfg: dict[str, Any]
    added: tuple[type[nn.Module], ...] = ()  # what a model adds to its trunk; each has `reset_parameters`

    def __init__(self, *, num_classes: int, in_chans: int) -> None:
        super().__init__()
        if in_chans < 1:
            raise ValueError(f"in_chans must be at least 1, got {in_chans = }")
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.pretrained_cfg = {}

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

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, num_classes)` for clips `(B, C, T, H, W)`."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Any:
        """The last features of clips `(B, C, T, H, W)`."""
        raise NotImplementedError

    def forward_head(self, x: Any, pre_logits: bool = False) -> Any:
        """Logits, or with `pre_logits` the pooled features `(B, head_hidden_size)`, of the last features."""
        raise NotImplementedError

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier; None keeps the pooling."""
        raise NotImplementedError

    def count_classes(self, num_classes: int) -> None:
        """State how many classes a new classifier has; names of the old ones are forgotten."""
        self.num_classes = num_classes
        known = {key: value for key, value in self.pretrained_cfg.items() if key != "label_names"}
        self.pretrained_cfg = known | {"num_classes": num_classes}

    @property
    def default_cfg(self) -> dict[str, Any]:
        """timm's older name for `pretrained_cfg`."""
        return self.pretrained_cfg

    def set_input_size(self, img_size: int | Sequence[int] | None = None, num_frames: int | None = None) -> None:
        """Set the default input size; None leaves it."""
        size = self.img_size if img_size is None else to_size(img_size)
        frames = self.num_frames if num_frames is None else num_frames
        self.check_size(size, frames)
        self.img_size, self.num_frames = size, frames

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
