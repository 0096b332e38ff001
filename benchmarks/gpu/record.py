"""What a stage writes while it works: one line of JSON each, which its parent reads as they come."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class LeftOut(Exception):
    """A stage, or a part of one, that cannot run here; the message says what is missing."""


class Record:
    """Appends to a file that outlives the process."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = path
        self._deadline = time.monotonic() + seconds

    def need_seconds(self, seconds: float) -> None:
        """Leaves a part out that the stage's limit would cut."""
        if time.monotonic() + seconds > self._deadline:
            raise LeftOut(f"less than {seconds:g} s left; --limit gives the stage more")

    def row(self, table: str, **cells: Any) -> None:
        """A row of a table of figures; `goal` is the largest `ratio` that was aimed at."""
        if "goal" in cells:
            reached = "reached" if cells["ratio"] <= cells["goal"] else "not reached"
            cells["goal"] = f"{cells['goal']}: {reached}"
        self._write({"kind": "row", "table": table, "cells": cells})

    def fact(self, name: str, value: Any) -> None:
        self.row("facts", name=name, value=str(value))

    def failed(self, what: str, why: str) -> None:
        self._write({"kind": "failed", "what": what, "why": why})

    def left_out(self, what: str, why: str) -> None:
        self._write({"kind": "left out", "what": what, "why": why})

    def expect(self, what: str, right: bool, **cells: Any) -> None:
        """A row with what was seen; a failure too if that is not right."""
        self.row("checks", check=what, right="yes" if right else "NO", **cells)
        if not right:
            self.failed(what, ", ".join(f"{name} {value}" for name, value in cells.items()))

    @contextmanager
    def part(self, what: str) -> Any:
        """A part whose failure costs only itself; a lost device ends the stage by the parts that follow."""
        start = time.perf_counter()
        try:
            yield
        except LeftOut as reason:
            self.left_out(what, str(reason))
        except Exception as error:
            self.failed(what, f"{type(error).__name__}: {error}"[:2000])
        self._write({"kind": "took", "what": what, "seconds": round(time.perf_counter() - start, 2)})

    def _write(self, line: dict[str, Any]) -> None:
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def significant(value: float) -> float:
    """Rounded to four digits, for tables."""
    return float(f"{value:.4g}")
