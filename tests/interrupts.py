"""Interruptions of training, for tests that resume it."""

from __future__ import annotations

from typing import Any

import pytest

from sifa_zoo.training import finetune as training


def interrupt_epoch(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Ctrl-C after the clips of that epoch, before it is saved."""
    real = training.train_epoch

    def interrupted(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        if kwargs["position"].epoch == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "train_epoch", interrupted)
