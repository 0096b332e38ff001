"""Operations and bytes of a whole model and of its 2D trunk: what a GPU launches and moves, counted without one.

    python benchmarks/count_operations.py [--dtype bfloat16] [--json FILE]

One clip of 16 frames of 224 against 4 frames. Views and empty tensors do not count; bytes are those that each operation
reads and writes, once per tensor, whatever a cache may save. bfloat16 is autocast, whose casts of weights count too. A
training step is forward and backward.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import timm
import torch
from bench_models import TRUNKS, channels_last
from measure import benchmark_parser, markdown_table, write_json
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import sifa_zoo

FREE = {"view", "_unsafe_view", "transpose", "permute", "unsqueeze", "squeeze", "slice", "expand", "t", "select"}
FREE |= {"as_strided", "detach", "split", "alias", "unbind", "split_with_sizes", "empty_like", "empty", "new_empty"}


@dataclass
class Count:
    operations: int = 0
    megabytes: float = 0.0


class Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.total = Count()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        if function.overloadpacket.__name__ not in FREE:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, results)) if isinstance(leaf, torch.Tensor)]
            self.total.operations += 1
            # an expanded tensor has more numbers than memory
            self.total.megabytes += sum(min(t.nbytes, t.untyped_storage().nbytes()) for t in tensors) / 1e6
        return results


def count(model: nn.Module, inputs: torch.Tensor, dtype: torch.dtype, *, train: bool) -> Count:
    model.train(train)
    with Counting() as counting:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32), torch.set_grad_enabled(train):
            logits = model(inputs)
        if train:
            logits.float().logsumexp(1).mean().backward()
    return counting.total


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    args = parser.parse_args()
    dtype, rows = getattr(torch, args.dtype), []
    for name, trunk in TRUNKS.items():
        model = channels_last(sifa_zoo.create_model(name, num_classes=400))
        image_model = channels_last(timm.create_model(trunk, num_classes=400))
        frames = torch.randn(4, 3, 224, 224).to(memory_format=torch.channels_last)
        for train in (False, True):
            ours = count(model, torch.randn(1, 3, 16, 224, 224), dtype, train=train)
            theirs = count(image_model, frames, dtype, train=train)
            rows.append({"model": name, "pass": "training" if train else "forward"})
            rows[-1] |= {"ours": asdict(ours), "trunk": asdict(theirs)}
    head = ("model", "pass", "operations", "trunk's", "more", "MB", "trunk's", "more")
    cells = [
        [
            row["model"],
            row["pass"],
            *(f"{number:.0f}" for key in ("operations", "megabytes") for number in numbers(row, key)),
        ]
        for row in rows
    ]
    print(markdown_table(head, cells))
    write_json(args.json, {"setting": f"PyTorch {torch.__version__}, {args.dtype}, one clip", "rows": rows})


def numbers(row: dict, key: str) -> tuple[float, float, float]:
    ours, theirs = row["ours"][key], row["trunk"][key]
    return ours, theirs, ours - theirs


if __name__ == "__main__":
    main()
