"""What SIFA adds: the same training with learned offsets, with offsets held at zero, and with SIFA left out.

    python benchmarks/ablation.py --output runs/ablation --json benchmarks/results/ablation.json

On two kinds of generated motion clips. `plain` has the eight classes, and everything moves in every frame, so the stem,
which sees four frames at once, sees motion too. `steps` has the four directions, and the four frames of a group are
equal: motion exists only between the groups, where in SIFA-Net SIFA alone looks.

Each figure is the top-1 of the best epoch, chosen on the validation videos, on test videos of another seed. Runs are
those of `sifa-zoo finetune`; an interrupted call goes on where it was, and finished runs are not done again.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measure import benchmark_parser, machine, write_json

from sifa_zoo.evaluation.evaluate import evaluate_run
from sifa_zoo.files import CONFIG
from sifa_zoo.preparing.motion import CLASSES, write_motion_clips
from sifa_zoo.training.finetune import finetune

OFFSETS = ("learned", "zero", "none")
NUM_TRAIN, NUM_VAL, NUM_TEST = 1600, 160, 400  # of all eight classes
TRAIN = {"batch_size": 16, "opt": "muon", "lr": 0.02, "weight_decay": 0.01, "hflip": False, "crop_scale": 0.7}


@dataclass(frozen=True)
class Data:
    """A kind of clips, and how a model is trained on it."""

    classes: tuple[str, ...]
    hold: int
    epochs: int
    clip: dict[str, int]
    train: dict[str, Any] = field(default_factory=dict)


DATA = {
    "plain": Data(CLASSES, 1, 24, {"num_frames": 8, "frame_stride": 4, "img_size": 48}),
    "steps": Data(CLASSES[:4], 4, 8, {"num_frames": 16, "frame_stride": 1, "img_size": 96}, {"batch_size": 8}),
}


def write_clips(folder: Path, name: str) -> dict[str, Path]:
    """Lists of training and validation videos, and of the test videos, which are of another seed."""
    data = DATA[name]
    write_motion_clips(folder / name, num_train=NUM_TRAIN, num_val=NUM_VAL, seed=0, hold=data.hold)
    write_motion_clips(folder / f"{name}_test", num_train=8, num_val=NUM_TEST, seed=1, hold=data.hold)
    lists = {}
    for part, videos in (("train", f"{name}/train"), ("val", f"{name}/val"), ("test", f"{name}_test/val")):
        paths = [path for label in data.classes for path in sorted((folder / videos / label).iterdir())]
        lists[part] = folder / f"{name}_{part}.txt"
        lists[part].write_text("".join(f"{path.relative_to(folder)} {path.parent.name}\n" for path in paths))
    return lists


def train(folder: Path, name: str, *, model: str, offsets: str, seed: int) -> Path:
    """Train once, or go on, and return the run folder."""
    data, lists = DATA[name], write_clips(folder, name)
    run = folder / f"{model}-{name}-{offsets}-{seed}"
    finetune(
        lists["train"],
        val=lists["val"],
        output=run,
        model=model,
        clip=data.clip,
        train={**TRAIN, **data.train, "epochs": data.epochs, "seed": seed},
        model_args={"offsets": offsets} if offsets != "learned" else {},
        resume=(run / CONFIG).exists(),
    )
    return run


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for videos and runs")
    parser.add_argument("--model", default="sifa_net_nano", help="default: sifa_net_nano")
    parser.add_argument("--data", nargs="+", default=["plain", "steps"], choices=tuple(DATA), help="default: both")
    parser.add_argument("--offsets", nargs="+", default=OFFSETS, choices=OFFSETS, help="default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    args = parser.parse_args()

    rows = []
    for name in args.data:
        test = write_clips(args.output, name)["test"]
        for offsets in args.offsets:
            runs = [train(args.output, name, model=args.model, offsets=offsets, seed=seed) for seed in args.seeds]
            top1 = [evaluate_run(run, test)["top1"] for run in runs]
            rows.append({"model": args.model, "data": name, "offsets": offsets, "seeds": args.seeds, "top1": top1})
            print(json.dumps(rows[-1]), flush=True)
    print("\n| data | offsets | test top-1, mean | spread (sample sd) | each seed |\n| --- | --- | --- | --- | --- |")
    for row in rows:
        mean = statistics.mean(row["top1"])
        sd = statistics.stdev(row["top1"]) if len(row["top1"]) > 1 else float("nan")
        each = ", ".join(f"{value:.1f}" for value in row["top1"])
        print(f"| {row['data']} | {row['offsets']} | {mean:.1f} % | {sd:.1f} | {each} |")
    write_json(args.json, {"machine": machine("cpu"), "rows": rows})


if __name__ == "__main__":
    main()
