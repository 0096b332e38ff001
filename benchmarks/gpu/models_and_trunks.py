"""Whole models against timm's trunks, in turn in each round: eager, as CUDA graphs, compiled; and what is extra.

A clip of 16 frames becomes 4 time steps, so a model is compared with its trunk on 4 frames, as in `bench_models.py`.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable

import torch
from bench_models import TRUNKS, candidates, forward_call, rounds_of, training_call
from gpu.record import Record, significant
from measure import peak_bytes
from torch import nn

GOALS = {  # times the trunk, with 16 clips in bf16: eager, then compiled or as a graph
    "sifa_net_r50": (1.35, 1.2),
    "sifa_transformer_base": (1.2, 1.15),
}
PASSES = {"forward": forward_call, "training": training_call}
Calls = dict[str, Callable[[], object]]
Found = dict[str, tuple[nn.Module, torch.Tensor]]


def run(record: Record, device: str) -> None:
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = False
    if device == "cpu":
        found = {1: candidates(["sifa_net_r50"], batch=1, device=device, num_frames=8, size=64)}
        compare(record, found[1], 1, torch.float32, "eager", device)
        with record.part("extra"):
            extra(record, found[1], "sifa_net_r50", device)
        return
    batches = {batch: candidates(TRUNKS, batch=batch, device=device) for batch in (16, 1)}
    for batch, found in batches.items():
        compare(record, found, batch, torch.bfloat16, "eager", device)
    for name in TRUNKS:
        with record.part(f"{name}, extra"):
            extra(record, batches[16], name, device)
    for batch, found in batches.items():
        compare(record, found, batch, torch.bfloat16, "graph", device)
    compare(record, batches[16], 16, torch.float32, "eager", device)
    with record.part("peak with cudnn.benchmark"):
        record.need_seconds(15)
        peaks(record, batches[1], device)
    for batch, found in batches.items():
        compare(record, found, batch, torch.bfloat16, "compiled", device)


def compare(record: Record, found: Found, batch: int, dtype: torch.dtype, way: str, device: str) -> None:
    for name in (name for name in found if name in TRUNKS):
        for kind in PASSES:
            with record.part(f"{name}, {kind}, batch {batch}, {dtype}, {way}"):
                record.need_seconds({"eager": 6, "graph": 6, "compiled": 45}[way] if device == "cuda" else 6)
                pair = {key: found[key] for key in (name, TRUNKS[name])}
                calls = calls_of(pair, kind, dtype, way, device)
                _row(record, calls, name, kind, device, {"batch": batch, "dtype": str(dtype)[6:], "way": way})


def calls_of(pair: Found, kind: str, dtype: torch.dtype, way: str, device: str) -> Calls:
    calls: Calls = {}
    for name, (model, input_) in pair.items():
        called = torch.compile(model) if way == "compiled" else model
        call = PASSES[kind](called, input_, device, dtype)
        calls[name] = captured(call) if way == "graph" else call
    return calls


def captured(call: Callable[[], object]) -> Callable[[], object]:
    """The call as a CUDA graph, after calls on a side stream as PyTorch's notes have it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def _row(record: Record, calls: Calls, name: str, kind: str, device: str, setting: dict) -> None:
    seconds = rounds_of(calls, device, 7 if device == "cuda" else 1)
    ours, theirs = seconds[name], seconds[TRUNKS[name]]
    cells = {"model": name, "pass": kind, **setting}
    cells["ms"] = significant(1e3 * statistics.median(ours))
    cells["trunk_ms"] = significant(1e3 * statistics.median(theirs))
    cells["ratio"] = round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 3)
    if device == "cuda" and setting["way"] != "graph":  # a graph holds its memory already
        cells["peak_mb"] = round(peak_bytes(calls[name], device) / 2**20)
    if device == "cuda" and setting["batch"] == 16 and setting["dtype"] == "bfloat16":
        cells["goal"] = GOALS[name][setting["way"] != "eager"]
    record.row("models", **cells)


def extra(record: Record, found: Found, name: str, device: str) -> None:
    """Launches of a model and of its trunk, and the kernels (on a CPU, operators) that take longer in the model."""
    for kind in PASSES:
        pair = {key: found[key] for key in (name, TRUNKS[name])}
        calls = calls_of(pair, kind, torch.bfloat16 if device == "cuda" else torch.float32, "eager", device)
        ours, theirs = (profile(call, device) for call in calls.values())
        launches = {"launches": ours[1].total(), "trunk's": theirs[1].total()}
        record.row("launches", model=name, **{"pass": kind}, **launches, more=ours[1].total() - theirs[1].total())
        ours[0].subtract(theirs[0])
        for kernel, milliseconds in ours[0].most_common(12):
            count = ours[1][kernel] - theirs[1][kernel]
            cells = {"kernel": kernel[:90], "ms": significant(milliseconds), "calls": count}
            record.row("more than in the trunk", model=name, **{"pass": kind}, **cells)


def profile(call: Callable[[], object], device: str) -> tuple[Counter, Counter]:
    """Milliseconds and calls of each kernel; on a CPU, of each operator."""
    call()
    with torch.profiler.profile() as profiled:
        call()
        if device == "cuda":
            torch.cuda.synchronize()
    milliseconds: Counter = Counter()
    calls: Counter = Counter()
    wanted = torch.autograd.DeviceType.CUDA if device == "cuda" else torch.autograd.DeviceType.CPU
    for event in profiled.key_averages():
        if event.device_type == wanted:
            spent = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
            milliseconds[event.key] += spent / 1e3
            calls[event.key] += event.count
    return milliseconds, calls


def peaks(record: Record, found: Found, device: str) -> None:
    """Memory of one clip in float32, with and without `cudnn.benchmark`, native kernels and plain PyTorch."""
    for name in TRUNKS:
        model, clip = found[name]
        for backend in ("auto", "torch"):
            model.set_backend(backend)
            for benchmark in (False, True):
                torch.backends.cudnn.benchmark = benchmark
                torch.cuda.empty_cache()
                try:
                    peak = peak_bytes(forward_call(model, clip, device, torch.float32), device)
                    shown = f"{peak / 2**30:.2f}"
                except torch.cuda.OutOfMemoryError:
                    shown = "more than there is"
                record.row("peak GiB of a clip", model=name, backend=backend, cudnn_benchmark=benchmark, peak=shown)
            model.set_backend("auto")
    torch.backends.cudnn.benchmark = False
