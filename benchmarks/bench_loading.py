"""Loading weights: `create_model(..., checkpoint_path=)` against reading the file with safetensors, in one run.

    python benchmarks/bench_loading.py [--model NAME] [--json FILE]

Reading means that the tensors are in memory at the end: `safetensors.torch.load_file` and a copy of each tensor, since
by itself it maps the file and reads nothing. Both take turns; the ratio is the median over the rounds of the ratio
within a round, with the file in the page cache. Beside it: the map alone, the model built with drawn weights, and the
sha256 of the file, which loading from the Hub adds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measure import benchmark_parser, machine, write_json
from safetensors.torch import load_file, save_file

import sifa_zoo
from sifa_zoo.weights.hub import file_sha256


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    result = call()
    elapsed = time.perf_counter() - start
    del result
    return elapsed


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--model", default="sifa_transformer_large", help="default: sifa_transformer_large")
    parser.add_argument("--rounds", type=int, default=15, help="default: 15")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file(sifa_zoo.create_model(args.model).state_dict(), path)
        calls = {
            "create_model(checkpoint_path=)": lambda: sifa_zoo.create_model(args.model, checkpoint_path=path),
            "read with safetensors": lambda: {name: tensor.clone() for name, tensor in load_file(path).items()},
            "map with safetensors": lambda: load_file(path),
            "create_model, drawn weights": lambda: sifa_zoo.create_model(args.model),
            "sha256": lambda: file_sha256(path),
        }
        rounds = [{name: seconds(call) for name, call in calls.items()} for _ in range(args.rounds + 1)][1:]
        size = path.stat().st_size
    first, second, *_ = calls
    ratio = statistics.median(times[first] / times[second] for times in rounds)
    medians = {name: statistics.median(times[name] for times in rounds) for name in calls}
    print(f"{args.model}, {size / 1e6:.0f} MB, {machine('cpu')}")
    for name, value in medians.items():
        print(f"  {name:32} {value:.3f} s")
    print(f"  loading / reading                {ratio:.2f}")
    figures = {"machine": machine("cpu"), "model": args.model, "bytes": size, "seconds": medians, "ratio": ratio}
    write_json(args.json, figures)


if __name__ == "__main__":
    main()
