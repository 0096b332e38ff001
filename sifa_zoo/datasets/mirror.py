"""What mirroring does to labels, judged by class names that contain a side or a direction of rotation.

The mirror image of 'Pushing something from left to right' is 'Pushing something from right to left'. A class whose name
contains a side, but whose opposite is not a class, has no mirror image. All other classes stay the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from sifa_zoo.datasets.videos import few

NEVER = -1  # in place of a class: there is no mirror image

_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")  # SwipeLeft is two words
_SIDE = re.compile(
    r"(?<![a-z])(?:(?P<side>left|right)(?=(?:wards?|most|hand(?:ed|er|s)?)?(?![a-z]))"
    r"|(?P<turn>(?:counter|anti)[-_ ]?clockwise|ccw|clockwise|cw)(?![a-z]))"
)
_OPPOSITE = {"left": "right", "right": "left", "clockwise": "counterclockwise", "counterclockwise": "clockwise"}


def mirrored_classes(class_names: Sequence[str]) -> np.ndarray:
    """The class that each class becomes when mirrored, int64 `(num_classes,)`; `NEVER` if it has no mirror image.

    Example:
        >>> mirrored_classes(["jump", "Turn left", "turn right", "left hook"]).tolist()
        [0, 2, 1, -1]
    """
    plain = [_plain(name) for name in class_names]
    places = {name: place for place, name in enumerate(plain)}
    twice = {name for name, count in Counter(plain).items() if count > 1}
    mirrored = np.arange(len(plain))
    for place, name in enumerate(plain):
        if (opposite := _SIDE.sub(lambda match: _OPPOSITE[match[0]], name)) != name:
            ambiguous = name in twice or opposite in twice
            mirrored[place] = NEVER if ambiguous else places.get(opposite, NEVER)
    return mirrored


def mirror_labels(labels: np.ndarray, mirrored: np.ndarray | None) -> np.ndarray | None:
    """The labels of a clip when mirrored, or None if it must not be mirrored.

    Args:
        labels: One class `()`, or booleans `(num_classes,)` where a video may have several.
        mirrored: From `mirrored_classes`; with None nothing may be mirrored.
    """
    if mirrored is None:
        return None
    if labels.ndim == 0:
        return None if mirrored[labels] == NEVER else mirrored[labels]
    present = mirrored[np.flatnonzero(labels)]
    if (present == NEVER).any():
        return None
    result = np.zeros_like(labels)
    result[present] = True
    return result


def describe_mirroring(class_names: Sequence[str]) -> list[str]:
    """Lines that say what mirroring does to these classes."""
    mirrored = mirrored_classes(class_names)
    pairs = [f"{class_names[i]} <-> {class_names[j]}" for i, j in enumerate(mirrored) if i < j]
    never = [name for name, other in zip(class_names, mirrored, strict=True) if other == NEVER]
    lines = [f"mirrored clips change class: {few(pairs)}"] if pairs else []
    lines += [f"never mirrored (a side in the name, no opposite class): {few(never)}"] if never else []
    if all(name.isdecimal() for name in class_names):
        lines.append("mirroring: classes are numbers; use --no-hflip if some of them differ in left and right")
    return lines or ["mirroring: no class names a side, all clips keep their class"]


def _plain(name: str) -> str:
    """The name in lower case, words separated by spaces, each side and direction spelt in one way."""
    words = " ".join(re.split(r"[\s_]+", _HUMP.sub(" ", name).lower().strip()))
    return _SIDE.sub(lambda match: match["side"] or _direction(match["turn"]), words)


def _direction(turn: str) -> str:
    return "clockwise" if turn in ("clockwise", "cw") else "counterclockwise"
