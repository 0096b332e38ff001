"""What SIFA adds: the same training with learned offsets, with offsets held at zero, and with SIFA left out.

    python benchmarks/ablation.py --output runs/ablation --json benchmarks/results/ablation.json

On two kinds of generated motion clips. `plain`: everything moves in every frame, so the stem, which sees four frames at
once, sees motion too. `steps`: the four frames of a group are equal, so motion exists only between the groups, where
SIFA alone looks; without it SIFA-Net cannot know the direction and is right in at most half of the cases.

Each figure is the top-1 of the best epoch, chosen on 160 validation videos, on 400 test videos of another seed. An
interrupted call goes on where it was. A model on two CPU cores takes 3 to 6 minutes.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from pathlib import Path

from sifa_zoo.data.motion import write_motion_clips
from sifa_zoo.engine.evaluate import evaluate_run
from sifa_zoo.engine.prepare import CONFIG
from sifa_zoo.engine.train import finetune

OFFSETS = ("learned", "zero", "none")
CLIPS = {  # num_train, hold, and the clip that a model sees
    "plain": (1600, 1, {"num_frames": 8, "frame_stride": 4, "img_size": 48}),
    "steps": (1600, 4, {"num_frames": 16, "frame_stride": 1, "img_size": 48}),
}
EPOCHS = {"plain": 24, "steps": 30}
TRAIN = {"batch_size": 16, "opt": "muon", "lr": 0.02, "weight_decay": 0.01, "hflip": False, "crop_scale": 0.7}


def write_clips(folder: Path, data: str) -> tuple[Path, Path]:
    """Training and validation videos, and the test videos of another seed."""
    num_train, hold, _ = CLIPS[data]
    write_motion_clips(folder / data, num_train=num_train, num_val=160, seed=0, hold=hold)
    write_motion_clips(folder / f"{data}_test", num_train=8, num_val=400, seed=1, hold=hold)
    return folder / data, folder / f"{data}_test"


def train(folder: Path, data: str, *, model: str, offsets: str, seed: int) -> tuple[Path, float]:
    """Train once, or go on; returns the run folder and the best validation top-1 in percent."""
    run = folder / f"{model}-{data}-{offsets}-{seed}"
    best = finetune(
        folder / data,
        output=run,
        model=model,
        clip=CLIPS[data][2],
        train={**TRAIN, "epochs": EPOCHS[data], "seed": seed},
        model_args={"offsets": offsets} if offsets != "learned" else {},
        resume=(run / CONFIG).exists(),
    )
    return run, best["val_top1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for videos and runs")
    parser.add_argument("--model", default="sifa_net_nano", help="default: sifa_net_nano")
    parser.add_argument("--data", nargs="+", default=["plain", "steps"], choices=tuple(CLIPS), help="default: both")
    parser.add_argument("--offsets", nargs="+", default=OFFSETS, choices=OFFSETS, help="default: all")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    args = parser.parse_args()

    rows = []
    for data in args.data:
        _, test = write_clips(args.output, data)
        for offsets in args.offsets:
            top1 = []
            for seed in range(args.seeds):
                run, _ = train(args.output, data, model=args.model, offsets=offsets, seed=seed)
                top1.append(evaluate_run(run, test)["top1"])
            rows.append({"model": args.model, "data": data, "offsets": offsets, "top1": top1})
            print(json.dumps(rows[-1]), flush=True)
    print("\n| data | offsets | test top-1, mean | spread (sample sd) | each seed |\n| --- | --- | --- | --- | --- |")
    for row in rows:
        mean = statistics.mean(row["top1"])
        sd = statistics.stdev(row["top1"]) if len(row["top1"]) > 1 else float("nan")
        each = ", ".join(f"{value:.1f}" for value in row["top1"])
        print(f"| {row['data']} | {row['offsets']} | {mean:.1f} % | {sd:.1f} | {each} |")
    if args.json:
        args.json.write_text(json.dumps({"machine": platform.processor(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
