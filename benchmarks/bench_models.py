"""Whole models: SIFA's against timm's 2D models on as many frames, and against torchvision's video models.

    python benchmarks/bench_models.py [--dtype float32 bfloat16] [--train] [--json FILE] ...

A clip of 16 frames becomes 4 time steps, so a SIFA model is compared with its 2D trunk on 4 frames. Every model has
random weights (the time does not depend on them), channels_last memory, and taps moved by a pixel or so. The models
take turns in each round; ratios are medians over the rounds of the ratio within a round. bfloat16 is autocast. A
training step is forward, backward and an update by SGD. The last lines tell where a SIFA model spends what its trunk
does not.
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from random import Random

import timm
import torch
from measure import benchmark_parser, machine, markdown_table, peak_bytes, time_call, write_json
from torch import nn

import sifa_zoo
from sifa_zoo.models.sifa import SIFA

TRUNKS = {
    "sifa_net_r50": "resnet50",
    "sifa_transformer_base": "swin_base_patch4_window7_224",
    "timm:resnet50": "resnet50",
}
VIDEO_MODELS = ("r3d_18", "mvit_v2_s", "swin3d_t")
CLASSES = 400


def candidates(
    models: Iterable[str], *, batch: int, device: str, num_frames: int = 16, size: int = 224
) -> dict[str, tuple[nn.Module, torch.Tensor]]:
    """Models and their trunks, with their inputs; beside those of SIFA, torchvision's."""
    clip = torch.randn(batch, 3, num_frames, size, size)
    frames = torch.randn(batch * num_frames // 4, 3, size, size).to(memory_format=torch.channels_last)
    found = {}
    for name in models:
        if name not in TRUNKS:
            import torchvision

            found[name] = (torchvision.models.get_model(name, num_classes=CLASSES), clip)
            continue
        trunk = TRUNKS[name]
        model = sifa_zoo.create_model(name, num_classes=CLASSES)
        for module in model.modules():
            if isinstance(module, SIFA):
                nn.init.normal_(module.conv_offset.weight, std=1 / module.conv_offset.in_channels**0.5 / 3)
        found[name] = (model, clip)
        found[trunk] = (timm.create_model(trunk, num_classes=CLASSES), frames)
    return {name: (channels_last(model.to(device)), input_.to(device)) for name, (model, input_) in found.items()}


def channels_last(model: nn.Module) -> nn.Module:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in model.parameters():
        if parameter.ndim in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])
    return model


def forward_call(model: nn.Module, input_: torch.Tensor, device: str, dtype: torch.dtype) -> Callable[[], object]:
    def call():
        model.eval()
        with torch.inference_mode(), torch.autocast(device, dtype, enabled=dtype != torch.float32):
            return model(input_)

    return call


def training_call(model: nn.Module, input_: torch.Tensor, device: str, dtype: torch.dtype) -> Callable[[], object]:
    def call():
        model.train()
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            logits = model(input_)
        logits.float().logsumexp(1).mean().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 1e-6 * parameter.grad
                parameter.grad = None

    return call


def rounds_of(calls: dict[str, Callable[[], object]], device: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each call in each round, in another order each time and after an untimed call of its own.

    So that none always pays for the caches that another left.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    order, random = list(calls.items()), Random(0)
    for _ in range(rounds):
        random.shuffle(order)
        for name, call in order:
            call()
            seconds[name].append(time_call(call, device))
    return seconds


def operators(call: Callable[[], object], device: str) -> Counter:
    """Milliseconds of each operator by itself."""
    with torch.profiler.profile() as profile:
        call()
    found: Counter = Counter()
    for event in profile.key_averages():
        microseconds = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        found[event.key] += microseconds / 1e3
    return found


def measure(found: dict, args: argparse.Namespace, dtype: torch.dtype, *, train: bool) -> list[dict]:
    make = training_call if train else forward_call
    calls = {name: make(model, input_, args.device, dtype) for name, (model, input_) in found.items()}
    seconds = rounds_of(calls, args.device, args.rounds)
    rows = []
    for name, times in seconds.items():
        row = {"model": name, "dtype": str(dtype).removeprefix("torch."), "pass": "training" if train else "forward"}
        row |= {"ms": 1e3 * statistics.median(times), "peak_mb": peak_bytes(calls[name], args.device) / 2**20}
        if trunk := TRUNKS.get(name):
            row["ratio"] = statistics.median(a / b for a, b in zip(times, seconds[trunk], strict=True))
            ours, theirs = (operators(calls[key], args.device) for key in (name, trunk))
            row["trunk"] = trunk
            row["extra_ms"] = {key: ours[key] - theirs[key] for key in ours}
        rows.append(row)
    return rows


def report(rows: list[dict]) -> str:
    cells = []
    for row in rows:
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
        cells.append((row["model"], row["dtype"], row["pass"], f"{row['ms']:.0f}", ratio, f"{row['peak_mb']:.0f}"))
    lines = [markdown_table(("model", "dtype", "pass", "ms", "times its 2D trunk", "peak MB"), cells)]
    for row in rows:
        if "ratio" not in row:
            continue
        extra = sorted(row["extra_ms"].items(), key=lambda item: -abs(item[1]))[:8]
        text = ", ".join(f"{name.split('::')[-1]} {ms:+.1f}" for name, ms in extra if abs(ms) >= 0.05)
        lines.append(f"\n{row['model']} ({row['pass']}, {row['dtype']}) minus {row['trunk']}, ms by operator: {text}")
    return "\n".join(lines)


def main() -> None:
    parser = benchmark_parser(__doc__, devices=True)
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, default=1, help="clips")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--train", action="store_true", help="training steps too")
    parser.add_argument("--video-models", action=argparse.BooleanOptionalAction, default=True, help="torchvision's")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    names = (*TRUNKS, *(VIDEO_MODELS if args.video_models else ()))
    found = candidates(names, batch=args.batch, device=args.device)
    passes = [False, True] if args.train else [False]
    rows = [
        row
        for train in passes
        for name in args.dtype
        for row in measure(found, args, getattr(torch, name), train=train)
    ]
    versions = f"PyTorch {torch.__version__}, timm {timm.__version__}"
    setting = f"{machine(args.device)}; {versions}; 16 frames of 224, batch {args.batch}"
    print(f"{setting}\n\n{report(rows)}")
    write_json(args.json, {"setting": setting, "rows": rows})


if __name__ == "__main__":
    main()
