from __future__ import annotations

import numpy as np
import pytest

from sifa_zoo.datasets.mirror import NEVER, describe_mirroring, mirror_labels, mirrored_classes
from sifa_zoo.preparing.motion import CLASSES


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["Pushing something from left to right", "Pushing something from right to left"], [1, 0]),
        (["Pulling something from left to right", "Pushing something from right to left"], [NEVER, NEVER]),
        (["Swiping Left", "Swiping right", "SWIPING UP"], [1, 0, 2]),
        (["turn_left", "turn_right"], [1, 0]),
        (["TurnLeft", "TurnRight"], [1, 0]),
        (["turn-left", "Turn-Right"], [1, 0]),
        (["move leftward", "move rightward", "leftwards", "rightwards"], [1, 0, 3, 2]),
        (["left-handed throw", "right-handed throw", "lefthanded", "righthanded"], [1, 0, 3, 2]),
        (["leftmost", "rightmost"], [1, 0]),
        (["clockwise", "counterclockwise"], [1, 0]),
        (["Counter-Clockwise", "Clockwise"], [1, 0]),
        (["turn anti clockwise", "turn clockwise", "hand CW", "hand ccw"], [1, 0, 3, 2]),
        (["rolling left clockwise", "rolling right counterclockwise"], [1, 0]),
        (["rolling left clockwise", "rolling right clockwise"], [NEVER, NEVER]),
        (["left hook", "jump"], [NEVER, 1]),
        (["upright", "copyright", "cleft", "leftovers", "bright light", "righteous"], [0, 1, 2, 3, 4, 5]),
        (["left", "Left", "right"], [NEVER, NEVER, NEVER]),  # whose partner is right?
        (["0", "1"], [0, 1]),
        ([], []),
    ],
    ids=str,
)
def test_classes_and_their_mirror_images(names, expected):
    assert mirrored_classes(names).tolist() == expected


def test_motion_clips():
    mirrored = mirrored_classes(CLASSES)
    assert {name: CLASSES[place] for name, place in zip(CLASSES, mirrored, strict=True) if name != CLASSES[place]} == {
        "left": "right",
        "right": "left",
        "clockwise": "counterclockwise",
        "counterclockwise": "clockwise",
    }


def test_labels():
    mirrored = np.array([1, 0, 2, NEVER])
    assert [mirror_labels(label, mirrored) for label in np.arange(4)] == [1, 0, 2, None]
    assert mirror_labels(np.int64(0), None) is None
    several = mirror_labels(np.array([True, False, True, False]), mirrored)
    assert several is not None
    assert several.tolist() == [False, True, True, False]
    assert mirror_labels(np.array([True, False, True, True]), mirrored) is None
    nothing = mirror_labels(np.zeros(4, bool), mirrored)
    assert nothing is not None
    assert not nothing.any()


def test_description():
    assert describe_mirroring(["turn left", "turn right", "left hook", "jump"]) == [
        "mirrored clips change class: turn left <-> turn right",
        "never mirrored (a side in the name, no opposite class): left hook",
    ]
    assert describe_mirroring(["run", "jump"]) == ["mirroring: no class names a side, all clips keep their class"]
    assert "use --no-hflip if some of them differ" in describe_mirroring(["0", "1"])[0]
