"""Training is finite and learns: 200 steps in each precision, compiled, and with the whole step in a CUDA graph.

Right is: every loss is finite, and the mean of the last tenth is below 0.8 times that of the first.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

import torch
from gpu.moving_task import clips, model_of
from gpu.record import LeftOut, Record, significant
from torch import Tensor
from torch.nn.functional import cross_entropy

MODELS = ("sifa_net_nano", "sifa_transformer_nano")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LR = 2e-3
FALL = 0.8


def run(record: Record, device: str) -> None:
    ways: dict[str, Callable[..., list[Tensor]]] = {name: eager for name in DTYPES}
    ways |= {"bf16, graph": graph, "fp32, graph": graph, "bf16, compiled": compiled}
    for way, train in ways.items():
        for model in MODELS:
            with record.part(f"{model}, {way}"):
                record.need_seconds(35 if train is compiled and device == "cuda" else 5)
                _check(record, model, way, train, device)


def _check(record: Record, model: str, way: str, train: Callable[..., list[Tensor]], device: str) -> None:
    steps = 200 if device == "cuda" else 2
    start = time.perf_counter()
    losses = [loss.item() for loss in train(model, DTYPES[way.split(",")[0]], steps, device)]
    tenth = max(1, steps // 10)
    first, last = statistics.mean(losses[:tenth]), statistics.mean(losses[-tenth:])
    finite = all(math.isfinite(loss) for loss in losses)
    falls = last < FALL * first or device == "cpu"  # too few steps to ask for it in small
    record.expect(
        f"{model}, {way}: finite" + (" and falls" if device == "cuda" else ""),
        finite and falls,
        steps=steps,
        first=significant(first),
        last=significant(last),
        finite=finite,
        seconds=round(time.perf_counter() - start, 1),
    )


def batches(steps: int, device: str) -> list[tuple[Tensor, Tensor]]:
    """The clips of all steps; made before the clock runs, 32 of them in turn."""
    batch = 16 if device == "cuda" else 2
    made = [clips(step, batch, device) for step in range(min(steps, 32))]
    return [made[step % len(made)] for step in range(steps)]


def eager(name: str, dtype: torch.dtype, steps: int, device: str, *, compile_: bool = False) -> list[Tensor]:
    model = model_of(name, device).train()
    called = torch.compile(model) if compile_ else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
    losses = []
    for clip, label in batches(steps, device):
        optimizer.zero_grad()
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            logits = called(clip)
        loss = cross_entropy(logits.float(), label)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.detach())
    return losses


def compiled(name: str, dtype: torch.dtype, steps: int, device: str) -> list[Tensor]:
    if device == "cpu":
        raise LeftOut("not compiled in small")
    return eager(name, dtype, steps, device, compile_=True)


def graph(name: str, dtype: torch.dtype, steps: int, device: str) -> list[Tensor]:
    """The whole step as PyTorch's notes on CUDA graphs have it, under "Whole-network capture"."""
    if device == "cpu":
        raise LeftOut("no GPU")
    model = model_of(name, device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, capturable=True)
    made = batches(steps, device)
    clip, label = (tensor.clone() for tensor in made[0])

    def step() -> Tensor:
        # The cache of casts would keep tensors of one replay for the next.
        with torch.autocast(device, dtype, enabled=dtype != torch.float32, cache_enabled=False):
            logits = model(clip)
        loss = cross_entropy(logits.float(), label)
        loss.backward()
        optimizer.step()
        return loss

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            optimizer.zero_grad(set_to_none=True)
            warm = step()
    torch.cuda.current_stream().wait_stream(side)
    losses = [warm.detach().clone()]
    del warm
    optimizer.zero_grad(set_to_none=True)  # backward then allocates gradients in the graph's own memory
    whole = torch.cuda.CUDAGraph()
    with torch.cuda.graph(whole):
        captured = step()
    for next_clip, next_label in made:
        clip.copy_(next_clip)
        label.copy_(next_label)
        whole.replay()
        losses.append(captured.detach().clone())
    return losses
