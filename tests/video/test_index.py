"""Times go on where a clock is set anew."""

from __future__ import annotations

import numpy as np
import pytest

from sifa_zoo.video import index


@pytest.mark.parametrize(
    ("container", "times", "expected"),
    [
        ("flv", [], []),
        ("flv", [5, 6, 8], [5, 6, 8]),
        ("flv", [20, 21, 22, 0, 1, 3], [20, 21, 22, 23, 24, 26]),  # set back
        ("flv", [20, 21, 0, 23, 24], [20, 21, 22, 23, 24]),  # one stray time, back or ahead
        ("flv", [0, 1, 90, 3, 4], [0, 1, 2, 3, 4]),
        ("flv", [0, 1, 3, 2, 4], [0, 1, 3, 3, 4]),
        ("flv", [0, 1, 900, 901], [0, 1, 900, 901]),
        ("mpegts", [0, 1, 900, 901], [0, 1, 2, 3]),
        ("avi", [20, index.NO_TIME, 22, 0, index.NO_TIME], [20, index.NO_TIME, 22, 24, index.NO_TIME]),
    ],
)
def test_clocks_that_are_set_anew_go_on(container, times, expected):
    assert index._continued(np.array(times, np.int64), (1, 10), container).tolist() == expected
