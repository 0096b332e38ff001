"""Interruptions of training, for tests that resume it."""

from __future__ import annotations

from typing import Any

import pytest

from sifa_zoo.engine import train


def interrupt_epoch(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Ctrl-C after the clips of that epoch, before it is saved."""
    real = train._train_epoch

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        row = real(*args, **kwargs)
        if kwargs["epoch"] == epoch:
            raise KeyboardInterrupt
        return row

    monkeypatch.setattr(train, "_train_epoch", interrupted)
