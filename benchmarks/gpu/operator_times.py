"""The operator over the shapes that the models have: kernels with a cold L2, the call, and plain PyTorch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from gpu.record import Record, significant
from measure import time_call

from sifa_zoo.ops import inter_frame_attention

SHAPES = ((64, 56), (128, 56), (128, 28), (256, 14), (512, 7), (1024, 7))  # channels, side
SMALL = ((16, 14), (32, 7))
OFFSETS = (0.0, 1.0, 4.0)  # standard deviation, in pixels


def run(record: Record, device: str) -> None:
    shapes, batch, steps = (SHAPES, 8, 8) if device == "cuda" else (SMALL, 1, 4)
    bandwidth = 0.0
    with record.part("copy"):
        bandwidth = copy_bandwidth(device)
        record.row("copy", GB_per_second=significant(bandwidth / 1e9))
    rows = [(shape, dtype, 1.0) for shape in shapes for dtype in (torch.bfloat16, torch.float32)]
    rows += [(shapes[1], torch.bfloat16, pixels) for pixels in OFFSETS if pixels != 1.0]
    for (channels, side), dtype, pixels in rows:
        with record.part(f"{channels} channels, {side}x{side}, {dtype}, {pixels:g} px"):
            inputs = draw((batch, channels, steps, side, side), dtype, pixels, device)
            name = {"C": channels, "side": side, "dtype": str(dtype).removeprefix("torch."), "px": pixels}
            measure(record, name, inputs, device, bandwidth)


def draw(shape: tuple[int, ...], dtype: torch.dtype, pixels: float, device: str) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).to(device, dtype, memory_format=torch.channels_last_3d)
    offset = pixels * torch.randn(shape[0], 18, *shape[2:], generator=generator)
    offset = offset.to(device, memory_format=torch.channels_last_3d)
    return [x.requires_grad_(), offset.requires_grad_(), torch.randn_like(x)]


def measure(record: Record, name: dict, inputs: list[torch.Tensor], device: str, bandwidth: float) -> None:
    x, offset, grad = inputs
    sizes = {
        "forward": 2 * x.nbytes + offset.nbytes,
        "backward": 3 * x.nbytes + 2 * offset.nbytes,
    }
    for direction, least in sizes.items():
        native, call_time = cold_seconds(call_of(direction, x, offset, grad, device), device)
        plain, _ = cold_seconds(call_of(direction, x, offset, grad, "torch"), device, repeats=5)
        record.row(
            "operator",
            **name,
            direction=direction,
            kernels_us=significant(1e6 * native),
            call_us=significant(1e6 * call_time),
            share_of_copy=f"{least / bandwidth / native:.1%}" if bandwidth else "",
            torch_us=significant(1e6 * plain),
            faster=significant(plain / native),
        )


def call_of(
    direction: str, x: torch.Tensor, offset: torch.Tensor, grad: torch.Tensor, backend: str
) -> Callable[[], object]:
    if direction == "forward":

        def forward() -> torch.Tensor:
            with torch.no_grad():
                return inter_frame_attention(x, offset, backend=backend)

        return forward
    out = inter_frame_attention(x, offset, backend=backend)
    return lambda: torch.autograd.grad(out, (x, offset), grad, retain_graph=True)


def cold_seconds(call: Callable[[], object], device: str, repeats: int = 25) -> tuple[float, float]:
    """Median time of the kernels with nothing of theirs in L2, and of the call in Python."""
    call()
    if device == "cpu":
        seconds = statistics.median(time_call(call, device) for _ in range(3))
        return seconds, seconds
    flush = torch.empty(2**28, dtype=torch.uint8, device=device)  # larger than any L2
    kernels, calls = [], []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush.zero_()
        torch.cuda._sleep(2_000_000)  # the kernels wait in the queue, so that the call's own time is not seen
        begin.record()
        start = time.perf_counter()
        call()
        calls.append(time.perf_counter() - start)
        end.record()
        torch.cuda.synchronize()
        kernels.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(kernels), statistics.median(calls)


def copy_bandwidth(device: str) -> float:
    """Bytes a second of a plain copy, reading and writing counted."""
    source = torch.empty(2**28 if device == "cuda" else 2**22, device=device)
    target = torch.empty_like(source)
    seconds, _ = cold_seconds(lambda: target.copy_(source), device)
    return 2 * source.nbytes / seconds
