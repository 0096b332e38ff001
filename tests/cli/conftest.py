"""A command that is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from sifa_zoo.cli import main


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[[Sequence[object]], str]:
    """Run a command that leaves with code 2, and return its one line on stderr."""

    def run(argv: Sequence[object]) -> str:
        assert main([str(arg) for arg in argv]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        return line

    return run
