"""SIGINT (Ctrl-C) and SIGTERM as requests: training finishes its update, saves, and exits."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from torch import Tensor, nn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A run was ended by a signal; `exit_code` is 130 or 143, as shells report it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class StopSignals:
    """What was received since `stop_signals` began to listen: `received` is the number of the last signal, or None."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._deferring = False
        self._process = os.getpid()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within this context, the first signal is only noted, for `check`; a second one interrupts at once."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        self.check()

    def check(self) -> None:
        """Raises `Interrupted` if a signal was noted."""
        if self.received is not None:
            raise Interrupted(self.received)

    def handle(self, number: int, _frame: FrameType | None = None) -> None:
        """Notes a signal, or raises `Interrupted`; does nothing in a worker that has just been forked."""
        if os.getpid() != self._process:
            return
        noted = self._deferring and self.received is None
        self.received = number
        if not noted:
            raise Interrupted(number)


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Listens for SIGINT and SIGTERM in the main thread; Python does not deliver signals to others."""
    stop = StopSignals()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {number: signal.signal(number, stop.handle) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Interruptible(nn.Module):
    """A model that checks for a signal before each batch; a hook would cause another compilation."""

    def __init__(self, model: nn.Module, stop: StopSignals) -> None:
        super().__init__()
        self.model = model
        self.pretrained_cfg = getattr(model, "pretrained_cfg", {})
        self.stop = stop

    def forward(self, clips: Tensor) -> Tensor:
        self.stop.check()
        return self.model(clips)
