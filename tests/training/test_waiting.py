"""Training never waits for the device only to look at a number, and says loudly where the operators are slow."""

from __future__ import annotations

import traceback
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sifa_zoo.ops import native
from sifa_zoo.runtime.devices import HostCopy
from sifa_zoo.training import finetune as module

# What makes the host wait for a GPU: a number, a truth value, or a size that depends on values.
WAITS = ("_local_scalar_dense", "is_nonzero", "item", "equal", "nonzero", "masked_select", "unique", "_unique2")
ON_THE_HOST = (
    "/torch/optim/",
    "/torch/utils/data/",
    "/sifa_zoo/datasets/",
)  # counts of steps, and clips before they go


class Waits(TorchDispatchMode):
    """Counts the operations of each name, and how many of them a device would make the host wait for."""

    def __init__(self):
        super().__init__()
        self.seen, self.found = Counter(), Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        self.seen[name] += 1
        if name in WAITS:
            stack = [frame.filename for frame in traceback.extract_stack()]
            self.found[name] += not any(place in filename for filename in stack for place in ON_THE_HOST)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "settings",
    [{}, {"clip_grad": 1.0, "ema_decay": 0.9, "label_smoothing": 0.1}, {"mixup_alpha": 0.2, "accumulation_steps": 2}],
)
def test_no_step_waits(tmp_path, train, monkeypatch, settings):
    events, real = [], module.train_epoch

    def watched(learner, loader, **options):
        update = learner.update
        monkeypatch.setattr(learner, "update", lambda **kwargs: [update(**kwargs), events.append("updated")])
        with Waits() as waits:
            real(learner, loader, **options)
        assert not +waits.found
        assert waits.seen["_local_scalar_dense"]  # it would have seen them

    read = HostCopy.read
    monkeypatch.setattr(HostCopy, "read", lambda self: [events.append("read"), read(self)][1])
    monkeypatch.setattr(module, "train_epoch", watched)
    train(tmp_path / "run", epochs=1, **settings)  # three batches
    updates = -(-3 // settings.get("accumulation_steps", 1))
    # each update is read after the next one has been handed over, and the last at the end of the epoch
    assert events == ["updated", *["updated", "read"] * (updates - 1), "read"]


def test_nothing_is_saved_before_its_figures_are_read(tmp_path, train, monkeypatch):
    saved, real = [], module.save_state

    def save(run, learner, position):
        assert position.clips == 2 * position.step  # the sums are those of all updates
        saved.append(position.step)
        real(run, learner, position)

    monkeypatch.setattr(module, "save_state", save)
    train(tmp_path / "run", epochs=1, save_every=1)
    assert saved == [1, 2, 3, 3]  # the last before validation


def test_a_gradient_that_is_not_finite_is_not_saved(tmp_path, train, monkeypatch):
    """The weights of the update are spoilt by the time that is known, and must not reach a file."""
    norms = iter([1.0, float("nan"), 1.0])
    monkeypatch.setattr(module.Learner, "gradient_norm", lambda self, scale: torch.tensor(next(norms)))
    with pytest.raises(module.TrainingError, match=r"the norm of the gradient is nan in epoch 1, .*\.mp4, .*\.mp4;"):
        train(tmp_path / "run", epochs=1, save_every=2)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json"}


def test_slow_operators_are_said_at_the_start_and_at_the_end(tmp_path, train, monkeypatch, capsys):
    monkeypatch.setattr(native, "_LOADED", {})
    monkeypatch.setenv("SIFA_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SIFA_ZOO_OPS", "nobuild")
    native.kernels_for.cache_clear()
    with pytest.warns(UserWarning, match="many times slower: not compiled, and SIFA_ZOO_OPS=nobuild"):
        train(tmp_path / "run", epochs=1)
    native.kernels_for.cache_clear()
    out = capsys.readouterr().out
    assert out.count("!! On cpu, the operators of SIFA run in plain PyTorch, many times slower:\n") == 2
    assert out.count("!! `sifa-zoo doctor` says what there is;") == 2
    assert out.index("!! On cpu") < out.index("epoch 1/1") < out.rindex("!! On cpu") < out.index("best: top-1")
    capsys.readouterr()
    monkeypatch.setenv("SIFA_ZOO_OPS", "torch")
    train(tmp_path / "asked_for", epochs=1)
    assert "!!" not in capsys.readouterr().out
