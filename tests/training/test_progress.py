from __future__ import annotations

import io

import pytest

from sifa_zoo.training.progress import DataClock, progress_bar, show_update


def test_waiting_and_rate() -> None:
    times = iter([0.0, 0.0, 3.0, 4.0, 4.0, 4.0, 8.0, 8.0, 8.0])  # start, (asked, came), lap, (asked, came), lap, end
    clock = DataClock(lambda: next(times))
    laps = [clock.lap(clips=2) for _ in clock.watch(["a", "b"])]
    assert laps == [{"clips_per_second": 0.5, "data_wait": 0.75}, {"clips_per_second": 0.5, "data_wait": 0.0}]
    assert clock.data_wait == pytest.approx(3 / 8)


def test_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    monkeypatch.setattr("sys.stderr", text)
    with progress_bar(2, epochs=3, clips=8, done=4) as bar:
        show_update(bar, clips=4, loss=0.5, lr=1e-3, data_wait=0.25)
    last = text.getvalue().split("\r")[-1]
    for part in ("epoch 2/3: 100%", "8/8", "clip/s", "00:00<00:00", "loss 0.500, lr 1.0e-03, waiting for data 25%"):
        assert part in last


def test_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(1, epochs=1, clips=2, show=False) as bar:
        show_update(bar, clips=2, loss=0.5, lr=1e-3, data_wait=0.0)
    assert capsys.readouterr().err == ""
