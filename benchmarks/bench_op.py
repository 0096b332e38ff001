"""Native against plain PyTorch: inter-frame attention, forward and backward, over the shapes that the models have.

    python benchmarks/bench_op.py [--device cpu] [--dtype float32] [--json FILE] ...

Every ratio is of medians taken in one run, the candidates in turn in each round. "best PyTorch" is the faster, shape by
shape, of two forms: the package's own (`backend="torch"`, rows of pixels gathered tap by tap), and a loop over the taps
around `torch.nn.functional.grid_sample`. Peak memory is what the call allocates at most beyond its inputs, outputs
included, read from the profiler on a CPU and from the allocator on a GPU. On a GPU the last columns are the share of
the bandwidth of a plain copy, measured in the same run, that reading inputs and writing outputs once would have taken.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from measure import benchmark_parser, machine, markdown_table, median_seconds, peak_bytes, write_json
from torch.nn import functional as F

from sifa_zoo.ops import backends, inter_frame_attention

SHAPES = {  # channels and side of the square map
    "sifa_net_r50": [(128, 28), (256, 14), (512, 7)],
    "sifa_transformer_base": [(128, 56), (256, 28), (512, 14), (1024, 7)],
}
STEPS = (4, 8, 16)


def grid_sample_form(x: torch.Tensor, offset: torch.Tensor, kernel_size: int = 3) -> torch.Tensor:
    """The operator as a loop over the taps, each sampled by `grid_sample`; autograd does the rest."""
    n, _, t, h, w = x.shape
    frames = x.transpose(1, 2)  # (N, T, C, H, W)
    query, value = frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1)  # (N*(T-1), C, H, W)
    taps = offset.transpose(1, 2)[:, 1:].flatten(0, 1)  # (N*(T-1), 2*K*K, H, W)
    rows = torch.arange(h, device=x.device).view(1, h, 1)
    columns = torch.arange(w, device=x.device).view(1, 1, w)
    pad = kernel_size // 2
    out = torch.zeros_like(query)
    for k in range(kernel_size**2):
        y = rows + (k // kernel_size - pad) + taps[:, 2 * k]
        x_ = columns + (k % kernel_size - pad) + taps[:, 2 * k + 1]
        grid = torch.stack([(2 * x_ + 1) / w - 1, (2 * y + 1) / h - 1], -1).to(value.dtype)
        sample = F.grid_sample(value, grid, align_corners=False)
        out = out + (query * sample).mean(1, keepdim=True) * sample
    return torch.cat([out.unflatten(0, (n, t - 1)), torch.zeros_like(frames[:, :1])], 1).transpose(1, 2)


FORMS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "native": lambda x, offset: inter_frame_attention(x, offset, backend=x.device.type),
    "rows": lambda x, offset: inter_frame_attention(x, offset, backend="torch"),
    "grid_sample": grid_sample_form,
}


def copy_bandwidth() -> float:
    """Bytes a second of a plain copy on the GPU, reading and writing counted."""
    source = torch.empty(2**28, device="cuda")
    target = torch.empty_like(source)
    seconds = median_seconds({"copy": lambda: target.copy_(source)}, "cuda", 10)["copy"]
    return 2 * source.nbytes / seconds


def measure(channels: int, side: int, steps: int, args: argparse.Namespace) -> dict:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(args.batch, channels, steps, side, side, generator=generator)
    offset = args.offset_scale * torch.randn(args.batch, 18, steps, side, side, generator=generator)
    x = x.to(args.device, getattr(torch, args.dtype), memory_format=torch.channels_last_3d)
    offset = offset.to(args.device, memory_format=torch.channels_last_3d)
    x_train, offset_train = x.clone().requires_grad_(), offset.clone().requires_grad_()
    grad = torch.randn_like(x)

    def forward(form):
        with torch.no_grad():
            return form(x, offset)

    def both(form):
        return torch.autograd.grad(form(x_train, offset_train), (x_train, offset_train), grad)

    row = {"channels": channels, "side": side, "steps": steps}
    for kind, run in (("forward", forward), ("both", both)):
        calls = {name: lambda form=form, run=run: run(form) for name, form in FORMS.items()}
        seconds = median_seconds(calls, args.device, args.rounds)
        best = min(("rows", "grid_sample"), key=seconds.__getitem__)
        row |= {f"{kind}_{name}_ms": 1e3 * value for name, value in seconds.items()}
        row |= {f"{kind}_best": best, f"{kind}_ratio": seconds[best] / seconds["native"]}
        row |= {f"{kind}_peak_{name}": peak_bytes(calls[name], args.device) / x.nbytes for name in ("native", best)}
    if args.device == "cuda":
        floor = {"forward": 2 * x.nbytes + offset.nbytes, "both": 5 * x.nbytes + 3 * offset.nbytes}
        for kind, least in floor.items():
            row[f"{kind}_share"] = least / args.bandwidth / (row[f"{kind}_native_ms"] / 1e3)
    return row


def table(rows: list[dict], device: str) -> str:
    head = ["C", "H=W", "T'"]
    for kind in ("forward", "forward + backward"):
        head += [f"{kind}: native ms", "best PyTorch ms", "ratio", "peak / output", "PyTorch's"]
    if device == "cuda":
        head += ["forward: share of copy bandwidth", "forward + backward: share"]
    lines = []
    for row in rows:
        cells = [str(row["channels"]), str(row["side"]), str(row["steps"])]
        for kind in ("forward", "both"):
            best = row[f"{kind}_best"]
            cells += [f"{row[f'{kind}_native_ms']:.3f}", f"{row[f'{kind}_{best}_ms']:.2f} ({best})"]
            cells += [f"{row[f'{kind}_ratio']:.1f}", f"{row[f'{kind}_peak_native']:.2f}"]
            cells += [f"{row[f'{kind}_peak_{best}']:.1f}"]
        if device == "cuda":
            cells += [f"{row['forward_share']:.0%}", f"{row['both_share']:.0%}"]
        lines.append(cells)
    return markdown_table(head, lines)


def main() -> None:
    parser = benchmark_parser(__doc__, devices=True)
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64", "bfloat16", "float16"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--offset-scale", type=float, default=1.0, help="standard deviation of the offsets, pixels")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, help="time steps T'")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    inter_frame_attention(torch.zeros(1, 1, 2, 1, 1, device=args.device), torch.zeros(1, 18, 2, 1, 1).to(args.device))
    if (reason := backends()[args.device]) is not True:
        raise SystemExit(f"no native kernel: {reason}")
    args.bandwidth = copy_bandwidth() if args.device == "cuda" else None

    shapes = [shape for model in SHAPES.values() for shape in model]
    rows = [measure(*shape, steps, args) for shape in shapes for steps in args.steps]
    setting = f"{machine(args.device)}; PyTorch {torch.__version__}; {args.dtype}, batch {args.batch}, K 3"
    print(f"{setting}, offsets {args.offset_scale} pixels\n")
    print(table(rows, args.device))
    print(f"\nmedian ratio: forward {statistics.median(row['forward_ratio'] for row in rows):.1f}", end=", ")
    print(f"forward + backward {statistics.median(row['both_ratio'] for row in rows):.1f}")
    write_json(args.json, {"setting": setting, "rows": rows})


if __name__ == "__main__":
    main()
