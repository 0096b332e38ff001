from __future__ import annotations

import pytest
import torch

from sifa_zoo.runtime.devices import autocast, pick_device, spare_cores


def test_a_device_that_is_not_there_is_refused() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    for device in ("cuda:99", "no such device"):
        with pytest.raises(ValueError, match=f"device '{device}' cannot be used here: "):
            pick_device(device)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_autocast(precision: str, dtype: torch.dtype) -> None:
    with autocast("cpu", precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_training_on_a_cpu_leaves_cores_to_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        with spare_cores(torch.device("cpu"), workers=3):
            assert torch.get_num_threads() == 1
        with spare_cores(torch.device("cpu"), workers=9):
            assert torch.get_num_threads() == 1
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
        with spare_cores(torch.device("cpu"), workers=3):
            assert torch.get_num_threads() == 4
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
