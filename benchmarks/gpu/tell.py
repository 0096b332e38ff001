"""A plugin of pytest: one line for each failure, when it happens."""

from __future__ import annotations

from typing import Any

import pytest


class Tell:
    def __init__(self, config: pytest.Config) -> None:
        self._terminal = config.get_terminal_writer()

    def pytest_runtest_logreport(self, report: Any) -> None:
        self._tell(report, report.when)

    def pytest_collectreport(self, report: Any) -> None:
        self._tell(report, "collection")

    def _tell(self, report: Any, when: str) -> None:
        if report.failed:
            lines = [line for line in report.longreprtext.splitlines() if line.strip()]
            errors = [line for line in lines if line.startswith("E")] or lines[-3:]
            text = " / ".join(line.removeprefix("E").strip() for line in errors[:6])
            where = lines[-1] if lines else ""
            self._terminal.line(f"\nFAILED-NOW {report.nodeid} [{when}] :: {text} ({where})"[:1500], flush=True)


@pytest.hookimpl(trylast=True)  # once there is a terminal to write to
def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # workers of xdist pass their reports on
        config.pluginmanager.register(Tell(config))
