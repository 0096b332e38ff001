"""The command that lists models and weights."""

from __future__ import annotations

import pytest

from sifa_zoo.cli import main


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "sifa_net*"]) == 0
    assert "sifa_net_r50" in capsys.readouterr().out.split()
    assert main(["list", "nothing*"]) == 1
    assert "no model matching 'nothing*'" in capsys.readouterr().err
