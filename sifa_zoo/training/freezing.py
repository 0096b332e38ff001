"""Training part of a model: with frozen stages, or the classifier alone."""

from __future__ import annotations

import re
from typing import Any, cast

from timm.models import group_parameters
from torch import nn


def freeze(model: nn.Module, pattern: str = "", *, linear_probe: bool = False) -> list[str]:
    """Turn off the gradients of parameters; `train_mode` then keeps their modules in eval mode.

    Args:
        model: A model of the zoo.
        pattern: A number N freezes the stem and the first N stages; anything else is a regular expression that
            is searched for in the parameters' names, such as `^(conv1|bn1|layer[12])`. Empty freezes nothing.
        linear_probe: Freeze all but the classifier, whatever the pattern.

    Returns:
        The names of the frozen parameters.

    Raises:
        ValueError: If the pattern is invalid, or freezes nothing or everything.

    Example:
        >>> model = sifa_zoo.create_model("sifa_net_nano", num_classes=2)
        >>> len(freeze(model, linear_probe=True)) == len(list(model.parameters())) - 2
        True
    """
    names = [name for name, _ in model.named_parameters()]
    if linear_probe:
        frozen = sorted(set(names) - set(_classifier_parameters(model)))
    elif not pattern:
        return []
    else:
        frozen = _first_stages(model, int(pattern)) if pattern.isdecimal() else _matching(names, pattern)
    if len(frozen) in (0, len(names)):
        raise ValueError(
            f"freeze must match some parameters but not all, got {pattern!r}, which freezes {len(frozen)} of "
            f"{len(names)}; their names are like {names[0]}"
        )
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    return frozen


def train_mode(model: nn.Module) -> None:
    """`model.train()` except for frozen modules, which running statistics and drop path would change."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def _classifier_parameters(model: nn.Module) -> list[str]:
    found = cast(Any, model).get_classifier()
    classifiers = found if isinstance(found, (tuple, list)) else (found,)
    ours = {id(parameter) for classifier in classifiers for parameter in classifier.parameters()}
    return [name for name, parameter in model.named_parameters() if id(parameter) in ours]


def _first_stages(model: nn.Module, num_stages: int) -> list[str]:
    """Names of the parameters of the stem and the first stages; the coarse groups are stem, stages, head."""
    groups = group_parameters(model, cast(Any, model).group_matcher(coarse=True), reverse=True)
    numbers = sorted(set(groups.values()))
    stages = len(numbers) - 2
    if not 1 <= num_stages <= stages:
        raise ValueError(f"freeze must be a number of stages from 1 to {stages} or a pattern, got {num_stages}")
    return [name for name, group in groups.items() if group in numbers[: num_stages + 1]]


def _matching(names: list[str], pattern: str) -> list[str]:
    try:
        return [name for name in names if re.search(pattern, name)]
    except re.error as error:
        raise ValueError(
            f"freeze must be a number of stages or a regular expression, got {pattern!r}: {error}"
        ) from error
