from __future__ import annotations

from typing import Any

import pytest
from torch import nn

import sifa_zoo
from sifa_zoo.training.freezing import freeze, train_mode


def nano(name: str = "sifa_net_nano", **options: Any) -> nn.Module:
    return sifa_zoo.create_model(name, num_classes=2, img_size=64 if "transformer" in name else 32, **options)


@pytest.mark.parametrize("name", ["sifa_net_nano", "sifa_transformer_nano"])
def test_freezing_stages(name):
    model = nano(name)
    frozen = freeze(model, "2")
    stages = ("layer1.", "layer2.", "conv1.", "bn1.") if "net" in name else ("layers.0.", "layers.1.", "patch_embed.")
    assert frozen == [name for name, _ in model.named_parameters() if name.startswith(stages)]
    assert all(parameter.requires_grad != (name in frozen) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("options", [{}, {"dual_head": True}])
def test_a_linear_probe_trains_the_classifier(options):
    model = nano(num_frames=8, **options)
    freeze(model, linear_probe=True)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    heads = ("head", "head_dual") if options else ("head",)
    assert trained == {f"{head}.fc.{part}" for head in heads for part in ("weight", "bias")}
    train_mode(model)
    assert not model.layer4.training
    assert model.training


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("no such name", "got 'no such name', which freezes 0 of 110"),
        (".", "got '.', which freezes 110 of 110"),
        ("9", "a number of stages from 1 to 4 or a pattern, got 9"),
        ("0", "a number of stages from 1 to 4 or a pattern, got 0"),
        ("(", r"a number of stages or a regular expression, got '\('"),
    ],
)
def test_freezing_nothing_or_all_is_refused(pattern, message):
    with pytest.raises(ValueError, match=message):
        freeze(nano(), pattern)
