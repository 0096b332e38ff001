from __future__ import annotations

import threading
import time

import pytest

from sifa_zoo.preparing.parallel_map import Stopped, parallel_map


@pytest.mark.parametrize("workers", [1, 3])
def test_every_item_comes_once_with_its_result(workers):
    results = list(parallel_map(lambda item, stop: item * item, range(50), workers=workers, text="square"))
    assert sorted(results) == [(i, i * i) for i in range(50)]


def test_items_are_worked_on_side_by_side():
    barrier = threading.Barrier(2, timeout=60)  # broken where one waits alone
    list(parallel_map(lambda item, stop: barrier.wait(), range(4), workers=2, text="meet"))


def test_the_bar_says_how_far_it_is(capsys):
    list(parallel_map(lambda item, stop: None, range(5), workers=1, text="look"))
    assert "look: 100%" in capsys.readouterr().err


def test_an_error_ends_the_work_and_drops_the_rest():
    begun = []

    def fail(item, stop):
        begun.append(item)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(parallel_map(fail, range(1000), workers=2, text="fail"))
    assert len(begun) < 20


def test_leaving_early_stops_what_runs():
    stopped = []

    def wait(item, stop):
        if item == 0:
            return
        while not stop.is_set():
            time.sleep(0.001)
        stopped.append(item)
        raise Stopped

    results = parallel_map(wait, range(100), workers=2, text="wait")
    next(results)
    results.close()
    assert stopped
    assert len(stopped) <= 2
