from __future__ import annotations

import warnings

import pytest
import torch

from sifa_zoo.runtime import devices
from sifa_zoo.runtime.devices import (
    HostCopy,
    autocast,
    fp32_products,
    pick_device,
    spare_cores,
    usual_precision,
    usual_workers,
)


def test_a_device_that_is_not_there_is_refused() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    for device in ("cuda:99", "no such device"):
        with pytest.raises(ValueError, match=f"device '{device}' cannot be used here: "):
            pick_device(device)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
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


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((12, 0), "bf16")])
def test_the_usual_precision(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert usual_precision("cuda:0") == precision
    assert usual_precision("cpu") == "fp32"


@pytest.mark.parametrize(
    ("cores", "processes", "on_cpu", "on_gpu"),
    [(1, 1, 1, 1), (2, 1, 2, 2), (16, 1, 4, 16), (64, 1, 16, 16), (64, 8, 2, 8), (2, 8, 1, 1)],
)
def test_the_usual_number_of_workers(
    monkeypatch: pytest.MonkeyPatch, cores: int, processes: int, on_cpu: int, on_gpu: int
) -> None:
    monkeypatch.setattr(devices, "usable_cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert (usual_workers("cpu"), usual_workers("cuda")) == (on_cpu, on_gpu)


@pytest.mark.parametrize(("tf32", "precision"), [(True, "high"), (False, "highest")])
def test_tf32_on_a_gpu_and_as_before_afterwards(tf32: bool, precision: str) -> None:
    def state() -> tuple[str, bool]:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = state()
    with pytest.raises(KeyError), warnings.catch_warnings():  # noqa: PT012
        warnings.simplefilter("error")
        with fp32_products(torch.device("cuda"), tf32=tf32):
            assert state() == (precision, tf32)
            raise KeyError
    assert state() == before
    with fp32_products(torch.device("cpu"), tf32=tf32):
        assert state() == before


def test_numbers_on_their_way_to_the_host() -> None:
    assert HostCopy(torch.tensor([1.5, float("inf")])).read() == [1.5, float("inf")]
