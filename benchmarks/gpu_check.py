"""Everything that only a GPU can tell, in one command of less than ten minutes.

    python benchmarks/gpu_check.py [--output FOLDER] [--stages tests,operator] [--skip finetune] [--limit models=60]

It runs from a plain copy of the repository, without installation or network. Each stage has a process of its own and a
limit in seconds; one that crashes or hangs costs itself alone. `check.md` and `check.json` are written as figures come,
so a run that is cut short keeps what it has. `--device cpu` rehearses every stage in small. The exit code is 0 if
nothing failed; ratios are compared with their goals, and do not fail.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT)]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

from gpu.children import run_stage  # noqa: E402
from gpu.record import LeftOut, Record  # noqa: E402
from gpu.report import Report  # noqa: E402
from gpu.stages import NAMES, STAGES  # noqa: E402


def main() -> int:
    args = parse_args()
    if args.child:
        return run_child(args)
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        print("no GPU is visible to PyTorch; --device cpu rehearses the check")
        return 2
    name = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    folder = args.output or ROOT / "benchmarks" / "results" / f"gpu_{re.sub(r'[^a-z0-9]+', '_', name.lower())}"
    folder.mkdir(parents=True, exist_ok=True)
    report = Report(folder, args.device)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of `finally`: no stage is left running
    for stage in STAGES:
        if stage.name not in args.stages or stage.name in args.skip:
            continue
        limit = args.limit.get(stage.name, stage.seconds if args.device == "cuda" else stage.seconds_cpu)
        print(f"== {stage.name} (at most {limit:g} s)", flush=True)
        report.begin(stage.name)

        def seen(line: dict, name: str = stage.name) -> None:
            report.add(name, line)
            print("  " + describe(line), flush=True)

        ended = run_stage(stage, args.device, folder, limit=limit, seen=seen)
        report.end(stage.name, ended)
        print(f"-- {stage.name}: {report.content['stages'][stage.name]['status']} {ended.get('why', '')}", flush=True)
    print(f"\n{folder / 'check.md'}")
    return int(report.failed)


def run_child(args: argparse.Namespace) -> int:
    """A stage, in its own process."""
    import torch

    if args.device == "cpu":
        torch.set_num_threads(1)
    record = Record(args.lines, args.seconds)
    try:
        importlib.import_module(args.child).run(record, args.device)
    except LeftOut as reason:
        record.left_out("stage", str(reason))
    return 0


def describe(line: dict) -> str:
    if line["kind"] == "row":
        return f"{line['table']}: " + ", ".join(f"{name} {value}" for name, value in line["cells"].items())
    if line["kind"] == "took":
        return f"({line['what']}: {line['seconds']} s)"
    return f"{line['kind'].upper()}: {line['what']}: {line['why']}"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/gpu_DEVICE")
    parser.add_argument("--stages", type=names, default=list(NAMES), help=f"some of {','.join(NAMES)}")
    parser.add_argument("--skip", type=names, default=[], help="stages to leave out")
    parser.add_argument("--limit", type=limit, action="append", default=[], help="STAGE=SECONDS, for any stage")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--lines", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.limit = dict(args.limit)
    return args


def names(text: str) -> list[str]:
    given = text.split(",")
    if unknown := set(given) - set(NAMES):
        raise argparse.ArgumentTypeError(f"no such stage: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    return given


def limit(text: str) -> tuple[str, float]:
    name, _, seconds = text.partition("=")
    return names(name)[0], float(seconds)


if __name__ == "__main__":
    sys.exit(main())
