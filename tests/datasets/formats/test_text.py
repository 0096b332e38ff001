from __future__ import annotations

import pytest

from sifa_zoo.datasets.formats.text import refuse_lines
from sifa_zoo.datasets.videos import DataError


def test_faults_without_a_unit_have_no_numbers():
    with pytest.raises(DataError, match="^videos: bad name$"):
        refuse_lines("videos", [(3, "bad name")], unit="")
    with pytest.raises(DataError, match="^videos has 2 faults:\n  bad name\n  worse name$"):
        refuse_lines("videos", [(3, "bad name"), (4, "worse name")], unit="")
