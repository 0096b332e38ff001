from __future__ import annotations

import io
import sys
from types import ModuleType
from typing import Any

import pytest

from sifa_zoo.training.monitor import (
    WANDB_ID,
    DataClock,
    check_trackers,
    open_trackers,
    progress_bar,
    show_update,
)


class FakeRun:
    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls

    def log(self, scalars: dict[str, float], *, step: int) -> None:
        self.calls.append((scalars, step))

    def __enter__(self) -> FakeRun:
        return self

    def __exit__(self, *_: object) -> None:
        self.calls.append("finished")


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was called of a package that stands in for W&B's."""
    calls: list[Any] = []

    def init(**options: Any) -> FakeRun:
        calls.append(options)
        return FakeRun(calls)

    module = ModuleType("wandb")
    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return calls


def test_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_trackers(["tensorboard"], tmp_path, settings={"lr": 0.1}) as log:
        for update in (1, 2, 3):
            log({"train/loss": 1 / update}, update)
    with open_trackers(["tensorboard"], tmp_path, settings={}, update=2) as log:  # resumed: 2 and 3 were lost
        log({"train/loss": 9.0}, 2)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 1.0), (2, 9.0)]


def test_wandb(tmp_path, wandb):
    check_trackers(["wandb"])
    for update in (0, 7):
        with open_trackers(["wandb"], tmp_path, settings={"lr": 0.1}, update=update) as log:
            log({"train/loss": 0.5}, update + 1)
    first, logged, finished, second, *_ = wandb
    assert logged == ({"train/loss": 0.5}, 1)
    assert finished == "finished"
    assert first["config"] == {"lr": "0.1"}
    assert first["resume"] == "allow"
    assert first["id"] == second["id"] == (tmp_path / WANDB_ID).read_text()


def test_all_at_once_or_none(tmp_path, wandb):
    with open_trackers(["tensorboard", "wandb"], tmp_path, settings={}) as log:
        log({"val/loss": 1.0}, 1)
    assert ({"val/loss": 1.0}, 1) in wandb
    assert any((tmp_path / "tensorboard").iterdir())
    with open_trackers([], tmp_path / "none", settings={}) as log:
        log({"val/loss": 1.0}, 1)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(ValueError, match=f"{name} needs a package that is not installed: pip install {name}"):
        check_trackers([name])


def test_waiting_and_rate():
    times = iter([0.0, 0.0, 3.0, 4.0, 4.0, 4.0, 8.0, 8.0, 8.0])  # start, (asked, came), lap, (asked, came), lap, end
    clock = DataClock(lambda: next(times))
    laps = [clock.lap(clips=2) for _ in clock.watch(["a", "b"])]
    assert laps == [{"clips_per_second": 0.5, "data_wait": 0.75}, {"clips_per_second": 0.5, "data_wait": 0.0}]
    assert clock.data_wait == pytest.approx(3 / 8)


def test_bar(monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr("sys.stderr", text)
    with progress_bar(2, epochs=3, clips=8, done=4) as bar:
        show_update(bar, clips=4, loss=0.5, lr=1e-3, data_wait=0.25)
    last = text.getvalue().split("\r")[-1]
    for part in ("epoch 2/3: 100%", "8/8", "clip/s", "00:00<00:00", "loss 0.500, lr 1.0e-03, waiting for data 25%"):
        assert part in last


def test_no_bar(capsys):
    with progress_bar(1, epochs=1, clips=2, show=False) as bar:
        show_update(bar, clips=2, loss=0.5, lr=1e-3, data_wait=0.0)
    assert capsys.readouterr().err == ""
