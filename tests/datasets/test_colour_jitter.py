from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2

from sifa_zoo.datasets.colour_jitter import ClipColorJitter

LEVELS = torch.tensor([0, 1, 2, 3, 60, 61, 100, 127, 128, 129, 200, 253, 254, 255], dtype=torch.uint8)
COLOURS = torch.cartesian_prod(LEVELS, LEVELS, LEVELS).view(49, 56, 3)  # with all grays and ties


def _noise(*size: int) -> torch.Tensor:
    """Noise, uint8 `(T, 3, H, W)`, in memory as decoded frames are."""
    frames = torch.randint(256, (*size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return frames.permute(0, 3, 1, 2)


def _both(settings: dict, frames: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What torchvision makes of frames, and what we make of them; both must draw alike."""
    results, following = [], []
    for kind in (v2.ColorJitter, ClipColorJitter):
        torch.manual_seed(seed)
        results.append(kind(**settings)(frames))
        following.append(torch.rand(1))
    assert torch.equal(*following)
    return results[0], results[1]


def _distance(results: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return (results[0].int() - results[1].int()).abs()


STEPS = [
    *({"brightness": (factor, factor)} for factor in (0.0, 0.3, 1.7, 300.0)),
    *({"contrast": (factor, factor)} for factor in (0.0, 0.3, 1.7, 300.0)),
    *({"saturation": (factor, factor)} for factor in (0.0, 0.3, 1.7, 300.0)),
    *({"hue": (turns, turns)} for turns in (-0.5, -1 / 3, -0.1, 1e-4, 1 / 6, 0.25, 0.5)),
    {},
]


@pytest.mark.parametrize("settings", STEPS, ids=str)
def test_each_step_is_torchvisions_within_a_grey_level(settings):
    distance = _distance(_both(settings, COLOURS.permute(2, 0, 1)[None], seed=0))
    assert distance.max() <= 1
    assert (distance > 0).float().mean() < 1e-3


@pytest.mark.parametrize("size", [(1, 33, 47), (3, 7, 5), (2, 1, 1)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_all_steps_in_every_order(size, layout):
    frames = _noise(*size).contiguous(memory_format=layout)
    before = frames.clone()
    for seed in range(40):
        results = _both({"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}, frames, seed)
        assert results[1].dtype == torch.uint8
        assert results[1].is_contiguous()
        distance = _distance(results)
        assert distance.max() <= 3  # later steps stretch a difference of one level
        assert (distance > 0).float().mean() < 1e-3
    assert torch.equal(frames, before)


def test_floats_are_left_to_torchvision():
    settings = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
    assert torch.equal(*_both(settings, _noise(2, 16, 9) / 255, seed=0))
