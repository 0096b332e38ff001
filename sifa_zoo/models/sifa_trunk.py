"""SIFA in any trunk: an image model of timm, run on frames, with SIFA behind some of its stages or blocks.

Nothing of the image model is replaced or subclassed. SIFA follows one of its modules as a forward hook, which sees what
the module returns whoever calls it, as timm's own feature hooks do. The weights of the image model keep their names
under `trunk.`; those that are added are under `sifa.`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from timm.models import group_parameters
from torch import Tensor, nn

from sifa_zoo.models.clip_model import (
    STEM_FRAMES,
    ClipModel,
    check_num_frames,
    check_output_fmt,
    keep_sizes,
    stack_frames,
    take_indices,
    to_size,
)
from sifa_zoo.models.gated_sifa import GatedSIFA
from sifa_zoo.models.image_trunk import TrunkError, feature_info, find_layouts, last_module, stack_stem, usual_stages
from sifa_zoo.models.sifa import check_offsets, fold


class SIFATrunk(ClipModel):
    """An image model of timm for clips.

    The first convolution sees four frames stacked in its channels, and starts with the image model's kernel on the
    third of them. Where no convolution can, a weighted sum of the four frames, which starts with the third, precedes
    the trunk. Time is folded into the batch, SIFA relates the time steps, and logits are averaged over time. Every gate
    of SIFA is zero at the start, so that a clip of equal frames has the logits of the image model for one of them.

    Args:
        trunk: An image model of timm, built for frames of `img_size`.
        in_chans: Channels of a frame, as the trunk was built for.
        num_frames: Frames per clip, a multiple of 4; `set_input_size` changes it.
        img_size: Size of the frames; None takes what timm states for the trunk.
        sifa_stages: Behind which entries of the trunk's `feature_info` to put SIFA, by number. None takes the last one
            of each resolution from a reduction of 8 on; or where all have the same resolution, as in a ViT, those at a
            quarter, a half and three quarters of the depth.
        kernel_size: K of SIFA.
        dilation: Distance between SIFA's taps, in cells of the feature map.
        offsets: "learned", or for ablations "zero" (a regular grid) or "none" (without SIFA).

    Raises:
        TrunkError: If SIFA cannot be put into this trunk, and why.
        ValueError: If a value is out of range.

    Example:
        >>> model = SIFATrunk(timm.create_model("resnet18", num_classes=5), num_frames=8)
        >>> model(torch.randn(2, 3, 8, 64, 64)).shape
        torch.Size([2, 5])
    """

    added = (GatedSIFA,)

    def __init__(
        self,
        trunk: nn.Module,
        *,
        in_chans: int = 3,
        num_frames: int = 16,
        img_size: int | Sequence[int] | None = None,
        sifa_stages: Sequence[int] | None = None,
        kernel_size: int = 3,
        dilation: int = 1,
        offsets: str = "learned",
    ) -> None:
        cfg: dict[str, Any] = dict(getattr(trunk, "pretrained_cfg", None) or {})
        infos = feature_info(trunk)
        check_offsets(offsets)
        check_num_frames(num_frames)
        chosen = usual_stages(infos) if sifa_stages is None else take_indices(sifa_stages, len(infos))[0]
        like = next(trunk.parameters())
        with like.device:
            stem = stack_stem(trunk, cfg, in_chans)
        super().__init__(num_classes=int(trunk.num_classes), in_chans=in_chans)  # type: ignore[arg-type]
        self.image_cfg = cfg
        self.feature_info = [{**info, "temporal_reduction": STEM_FRAMES} for info in infos]
        self.num_frames = num_frames
        self.img_size = to_size(cfg.get("input_size", (3, 224, 224))[1:] if img_size is None else img_size)
        self.stem = stem.to(like.dtype)
        self.trunk: Any = trunk
        self.sifa = nn.ModuleDict()
        self._behind: dict[str, str] = {}  # what each of them follows
        for index in chosen if offsets != "none" else ():
            name, dim = infos[index]["module"], infos[index]["num_chs"]
            with like.device:
                added = GatedSIFA(dim, kernel_size, dilation, offsets=offsets).to(like.dtype)
            added.num_steps = num_frames // STEM_FRAMES
            last_module(trunk, name).register_forward_hook(added.follow)
            key = name.replace(".", "_")
            self.sifa[key], self._behind[key] = added, name
        self.fixed_size = bool(cfg.get("fixed_input_size"))
        self._find_layouts()

    def _added(self) -> Iterator[tuple[str, GatedSIFA]]:
        return ((key, cast(GatedSIFA, added)) for key, added in self.sifa.items())

    # The forward pass

    def _enter(self, clip: Tensor) -> Tensor:
        self.check_input(clip)
        clip = keep_sizes(clip, num_frames=self.num_frames, img_size=self.img_size if self.fixed_size else (-1, -1))
        frames: Tensor = self.stem(fold(stack_frames(clip)))
        return frames

    def _leave(self, x: Tensor) -> Tensor:
        return x.unflatten(0, (-1, self.num_frames // STEM_FRAMES))

    def forward_features(self, x: Tensor) -> Tensor:
        """The last features of clips `(B, C, T, H, W)`: `(B, T', ...)`, each time step in the trunk's own layout."""
        return self._leave(self.trunk.forward_features(self._enter(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits, or with `pre_logits` pooled features, of the last features: the mean over time.

        Without pooling (`reset_classifier(0, "")`) the features of each time step.
        """
        steps = self._leave(self.trunk.forward_head(x.flatten(0, 1), pre_logits=pre_logits))
        return steps.mean(1) if steps.ndim == 3 else steps

    def step_features(self, x: Tensor) -> Tensor:
        """Pooled features `(B, T', head_hidden_size)` of each time step, of the last features."""
        return self._leave(self.trunk.forward_head(x.flatten(0, 1), pre_logits=True))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCTHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Feature maps `(B, C, T', H', W')` of some entries of `feature_info`; arguments as of `StagedModel`."""
        check_output_fmt(output_fmt)
        taken, _ = take_indices(indices, len(self.feature_info))
        how = {"norm": norm, "stop_early": stop_early, "output_fmt": "NCHW", "intermediates_only": intermediates_only}
        out = self.trunk.forward_intermediates(self._enter(x), indices=taken, **how)
        maps = [self._leave(frames).transpose(1, 2) for frames in (out if intermediates_only else out[1])]
        return maps if intermediates_only else (self._leave(out[0]), maps)

    # The rest of timm's contract

    @property
    def num_features(self) -> int:  # type: ignore[override]
        """Width of the unpooled features."""
        return int(self.trunk.num_features)

    @property
    def head_hidden_size(self) -> int:
        """Width of the pre-logits."""
        return int(getattr(self.trunk, "head_hidden_size", self.trunk.num_features))

    @property
    def global_pool(self) -> str:  # type: ignore[override]
        """The trunk's pooling over space."""
        return str(getattr(self.trunk, "global_pool", "avg"))

    @property
    def grad_checkpointing(self) -> bool:
        """Whether blocks of the trunk are computed again in backward."""
        return bool(getattr(self.trunk, "grad_checkpointing", False))

    def get_classifier(self) -> Any:
        """The trunk's classifier, or several."""
        return self.trunk.get_classifier()

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier; None keeps the pooling."""
        like, mode = next(self.parameters()), self.training
        arguments = () if global_pool is None else (global_pool,)
        self.trunk.reset_classifier(num_classes, *arguments)
        self.trunk.to(like.device, like.dtype).train(mode)
        self.count_classes(num_classes)

    def check_size(self, img_size: tuple[int, ...], num_frames: int) -> None:
        check_num_frames(num_frames)
        if min(img_size) < 1:
            raise ValueError(f"height and width must be positive, got {tuple(img_size)}")

    def check_input(self, clip: Tensor) -> None:
        super().check_input(clip)
        size, frames = tuple(clip.shape[3:]), clip.shape[2]
        if frames != self.num_frames:
            way_out = f"set_input_size(num_frames={frames})"
            raise ValueError(f"the model is set to clips of {self.num_frames} frames, got {frames}; {way_out}")
        if self.fixed_size and size != self.img_size:
            way_out = f"set_input_size(img_size={size})"
            raise ValueError(f"the model is set to frames of {self.img_size}, got {size}; {way_out}")

    def set_input_size(self, img_size: int | Sequence[int] | None = None, num_frames: int | None = None) -> None:
        """Set the input size; position tables of the trunk are resized where it can.

        Raises:
            ValueError: If the trunk has to be built for another size: `create_model(..., img_size=...)`.
        """
        size = self.img_size if img_size is None else to_size(img_size)
        self.check_size(size, self.num_frames if num_frames is None else num_frames)
        resized = size != self.img_size
        if resized and self.fixed_size:
            if not hasattr(self.trunk, "set_input_size"):
                raise ValueError(f"the trunk has to be built for {size}: create_model(..., img_size={size})")
            self.trunk.set_input_size(img_size=size)
        super().set_input_size(size, num_frames)
        for _, added in self._added():
            added.num_steps = self.num_frames // STEM_FRAMES
        if resized:
            self._find_layouts()

    def _find_layouts(self) -> None:
        """Let every SIFA know how frames of the present size lie in what the trunk's modules return."""
        for _, added in self._added():
            added.layout = None
        infos = [info for info in self.feature_info if info["module"] in self._behind.values()]
        layouts = find_layouts(self.stem, self.trunk, infos, (1, self.in_chans * STEM_FRAMES, *self.img_size))
        for key, added in self._added():
            added.layout = layouts[self._behind[key]]
        self.fixed_size = self.fixed_size or any(layout.tokens for layout in layouts.values())

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade compute for memory, as the trunk does.

        Raises:
            TrunkError: If it cannot.
        """
        try:
            self.trunk.set_grad_checkpointing(enable)
        except AssertionError as error:
            raise TrunkError(f"timm cannot checkpoint {type(self.trunk).__name__}: {error}") from error

    def no_weight_decay(self) -> set[str]:
        """The names that the trunk states."""
        stated = self.trunk.no_weight_decay() if hasattr(self.trunk, "no_weight_decay") else ()
        return {f"trunk.{name}" for name in stated}

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """The group of a parameter by its name, for layer decay: the trunk's; SIFA is in that of what it follows.

        Raises:
            TrunkError: If timm has no groups for this trunk.
        """
        try:
            groups = group_parameters(self.trunk, self.trunk.group_matcher(coarse=coarse), reverse=True)
        except (AttributeError, AssertionError) as error:
            way_out = "leave out layer decay, and freeze by a pattern of names"
            raise TrunkError(f"timm has no groups of layers for {type(self.trunk).__name__}: {way_out}") from error

        def group(name: str) -> int:
            root, _, rest = name.partition(".")
            if root == "trunk":
                return int(groups[rest])
            if root == "stem":
                return 0
            behind = self._behind[rest.partition(".")[0]] + "."
            return max(int(number) for name, number in groups.items() if name.startswith(behind))

        return group

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what the feature maps `indices` do not need; returns `indices` counted from the front."""
        taken, last = take_indices(indices, len(self.feature_info))
        self.trunk.prune_intermediate_layers(taken, prune_norm, prune_head)
        self.feature_info = self.feature_info[: last + 1]
        kept = {info["module"] for info in self.feature_info}
        for key in [key for key, name in self._behind.items() if name not in kept]:
            del self.sifa[key], self._behind[key]
        if prune_head:
            self.count_classes(0)
        return taken
