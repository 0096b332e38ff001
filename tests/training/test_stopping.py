from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from sifa_zoo.training.stopping import Interrupted, StopSignals, stop_signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_interrupts(number, code):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as interrupted, stop_signals():
        os.kill(os.getpid(), number)
    assert interrupted.value.exit_code == code
    assert isinstance(interrupted.value, KeyboardInterrupt)
    assert signal.getsignal(number) is before


def test_a_deferred_signal_waits_to_be_asked_for():
    with stop_signals() as stop, pytest.raises(Interrupted, match="SIGTERM"):  # nobody asks: the end of the block does
        defer(stop, signal.SIGTERM)
    assert stop.received == signal.SIGTERM
    with pytest.raises(Interrupted, match="SIGTERM"):
        stop.check()


def test_a_second_signal_does_not_wait():
    with stop_signals() as stop, pytest.raises(Interrupted, match="SIGINT"):
        defer(stop, signal.SIGTERM, signal.SIGINT)


def defer(stop: StopSignals, *numbers: signal.Signals) -> None:
    with stop.deferred():
        stop.check()
        for number in numbers:
            os.kill(os.getpid(), number)


def test_other_threads_and_forked_workers_are_left_alone():
    with stop_signals() as stop, ThreadPoolExecutor(1) as thread:
        handler = signal.getsignal(signal.SIGTERM)
        thread.submit(lambda: stop_signals().__enter__()).result()  # where `signal.signal` would raise
        assert signal.getsignal(signal.SIGTERM) == handler
        stop._process = -1
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received is None
