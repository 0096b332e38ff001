"""Put the best of several runs into the package, with an entry in the manifest.

    python benchmarks/ablation.py --output runs/ablation --data plain --offsets learned
    python benchmarks/embed_weights.py runs/ablation/sifa_net_nano-plain-learned-* --test runs/ablation/plain_test.txt

    python benchmarks/pretrain_motion.py --output runs/ablation/start.safetensors
    sifa-zoo finetune runs/ablation/plain --checkpoint runs/ablation/start.safetensors --output runs/ablation/swin \\
        --frame-stride 2 --no-hflip --crop-scale 0.7 --batch-size 16 --opt muon --lr 0.01 --weight-decay 0.01 \\
        --epochs 14 --workers 1
    python benchmarks/embed_weights.py runs/ablation/swin --test runs/ablation/plain_test.txt \\
        --trained-on "whole pictures that move (benchmarks/pretrain_motion.py), then 1600 generated motion clips"

The best is the one with the highest top-1 on the validation videos. Matrices and kernels are stored in half precision,
and all figures are measured with the stored file, on videos of another seed than those of training and validation.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import save

from sifa_zoo.evaluation.evaluate import evaluate_run
from sifa_zoo.files import write_files
from sifa_zoo.publishing.publish import describe_weights
from sifa_zoo.runtime.checkpoint import load_run, read_info
from sifa_zoo.weights.contents import read_weights
from sifa_zoo.weights.finding import EMBEDDED, weights_file
from sifa_zoo.weights.info import METADATA_KEY
from sifa_zoo.weights.manifest import manifest_path, manifest_with

TAG = "motion"
TRAINED_ON = "1600 generated motion clips"


def halved(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What has two or more dimensions in float16, all else as it is."""
    return {name: t.half() if t.is_floating_point() and t.ndim > 1 else t for name, t in tensors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of one model, of several seeds")
    parser.add_argument("--test", type=Path, required=True, help="test videos, of another seed")
    parser.add_argument("--trained-on", default=TRAINED_ON, help=f"in words (default: {TRAINED_ON})")
    args = parser.parse_args()

    infos = {run: read_info(run) for run in args.runs}
    assert all(infos.values()), "runs of sifa-zoo finetune are needed"
    run = max(args.runs, key=lambda run: infos[run].metrics["val_top1"])
    info = dataclasses.replace(infos[run], epoch=0, metrics={})  # they are of the weights before they were halved
    name = f"{info.arch}.{TAG}"
    path = EMBEDDED / f"{name}.safetensors"
    EMBEDDED.mkdir(exist_ok=True)
    tensors = {n: t.clone() for n, t in halved(read_weights(weights_file(run))).items()}
    write_files({path: save(tensors, {METADATA_KEY: info.to_json()})})

    figures = []
    for num_clips in (1, 3):
        result = evaluate_run(path, args.test, num_clips=num_clips)
        shared = {
            "data": "generated motion clips, seed 1",
            "status": "measured",
            "source": "benchmarks/embed_weights.py",
        }
        shared |= {"protocol": result["protocol"], "videos": result["videos"]}
        figures.append({"metric": "top1", "value": round(result["top1"], 2), **shared})
    entry = describe_weights(
        path, load_run(path), info, licence="apache-2.0", trained_on=args.trained_on, figures=figures
    )
    text = manifest_path().read_text(encoding="utf-8")
    write_files({manifest_path(): manifest_with(text, name, entry).encode()})
    print(f"{run} is {path}, {path.stat().st_size} bytes")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
