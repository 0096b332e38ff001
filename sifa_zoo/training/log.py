"""A row of the log of a run, `log.csv`."""

from __future__ import annotations

from typing import Any, TypeAlias

EpochRow: TypeAlias = dict[str, Any]  # column -> value
