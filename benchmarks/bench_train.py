"""What training costs: clips per second, share of the time spent waiting for data, peak memory.

    python benchmarks/bench_train.py [--models all] [--batch 8] [--device cuda] [--data VIDEOS] [--json FILE] ...

Each model trains at its default input on clips that are decoded from videos as in a run: loader, transform, forward,
loss, backward, clipping and AdamW. Torchvision's video models take 16 frames of 224 pixels, each in its own process, as
all models here do, so that the peak is its own. Weights are random. `--dtype bfloat16` is autocast. `--compile` adds a
compiled row to each: run it twice, with `--warm-up 2`, since compiling takes minutes and memory and is cached.

Peak memory is that of the GPU, or of the process beyond its libraries (VmHWM), without the processes that decode. What
these have ready when time starts serves the first steps: the share of waiting wants `--steps 20` or more. Without
`--data`, clips come from generated H.264 videos of 340 x 256 pixels.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import av
import numpy as np
import timm
import torch
import torchvision
from bench_models import channels_last
from measure import benchmark_parser, machine, markdown_table, synchronize, write_json
from timm.optim import create_optimizer_v2
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

import sifa_zoo
from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.clip_sampler import ClipSampler
from sifa_zoo.datasets.clips import ClipCutter
from sifa_zoo.datasets.reading import read_videos
from sifa_zoo.datasets.transforms import normalize_clips, train_transform
from sifa_zoo.datasets.videos import VideoList
from sifa_zoo.runtime.batches import clip_loader
from sifa_zoo.runtime.checkpoint import usual_clip
from sifa_zoo.training.monitor import DataClock

VIDEO_MODELS = ("r3d_18", "mvit_v2_s", "swin3d_t")
NANO = ("sifa_net_nano", "sifa_transformer_nano")
CLASSES = 400
FRAMES, WIDTH, HEIGHT = 96, 340, 256


def write_videos(folder: Path, count: int = 8) -> Path:
    """Moving noise in two classes, as large as videos of Kinetics usually are kept."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 4, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    for i in range(count):
        path = folder / "train" / "ab"[i % 2] / f"{i}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("h264", rate=30)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for t in range(FRAMES):
                frame = np.roll(picture, (t, 3 * t), (0, 1))[:, :WIDTH]
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
            container.mux(stream.encode())
    return folder


def build(name: str) -> tuple[nn.Module, ClipConfig]:
    """A model for 400 classes, and the clips that it takes."""
    if name in VIDEO_MODELS:
        return torchvision.models.get_model(name, num_classes=CLASSES), ClipConfig()
    return sifa_zoo.create_model(name, num_classes=CLASSES), usual_clip(name)


def batches(videos: VideoList, clip: ClipConfig, args: argparse.Namespace):
    """Clips without end: an epoch is as long as all steps together."""
    clips = (args.warm_up + args.steps) * args.batch
    cutter = ClipCutter(clip, train_transform(clip, normalize=False), seed=0)
    sampler = ClipSampler(videos, seed=0, repeats=-(-clips // len(videos)))
    return clip_loader(videos, cutter, batch_size=args.batch, sampler=sampler, workers=args.workers, device=args.device)


def memory(device: str) -> int:
    """The peak so far, in bytes."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def measure(name: str, dtype: str, compiled: bool, args: argparse.Namespace) -> dict:
    """The row of one model; called in a process of its own."""
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    libraries = memory(args.device)
    model, clip = build(name)
    model = channels_last(model.to(args.device)).train()
    if compiled:
        model.compile()
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-4, weight_decay=0.05)
    loader = batches(read_videos(args.data, "train"), clip, args)
    clock = DataClock()
    for step, batch in enumerate(islice(clock.watch(loader), args.warm_up + args.steps)):
        if step == args.warm_up:
            clock.lap(clips=0)
            start = time.perf_counter()
        with torch.autocast(args.device, getattr(torch, dtype), enabled=dtype != "float32"):
            logits = model(normalize_clips(batch.clips.to(args.device, non_blocking=True), clip))
        F.cross_entropy(logits.float(), batch.labels.to(args.device)).backward()
        clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        synchronize(args.device)
    rates = clock.lap(clips=args.steps * args.batch)
    row = {"model": name, "input": f"{clip.num_frames}x{clip.img_size}", "dtype": dtype, "compiled": compiled}
    row |= {"ms": 1e3 * (time.perf_counter() - start) / args.steps, **rates}
    return {**row, "peak_mb": (memory(args.device) - libraries) / 2**20}


def report(rows: list[dict]) -> str:
    head = ("model", "input", "dtype", "compiled", "clips/s", "waiting for data", "ms per step", "peak MB")
    lines = []
    for row in rows:
        if "error" in row:
            cells = (row["model"], "", row["dtype"], "yes" if row["compiled"] else "", row["error"], "", "", "")
        else:
            figures = (f"{row['clips_per_second']:.3g}", f"{row['data_wait']:.0%}", f"{row['ms']:.0f}")
            compiled = "yes" if row["compiled"] else ""
            cells = (row["model"], row["input"], row["dtype"], compiled, *figures, f"{row['peak_mb']:.0f}")
        lines.append(cells)
    return markdown_table(head, lines)


def parse() -> argparse.Namespace:
    parser = benchmark_parser(__doc__, devices=True)
    known = [*sifa_zoo.list_models(), *VIDEO_MODELS]
    parser.add_argument("--models", nargs="+", default=[*NANO, *VIDEO_MODELS], choices=["all", *known], metavar="NAME")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--compile", action="store_true", help="compiled, too")
    parser.add_argument("--batch", type=int, default=1, help="clips")
    parser.add_argument("--steps", type=int, default=3, help="that are timed")
    parser.add_argument("--warm-up", type=int, default=1, help="steps before them")
    parser.add_argument("--workers", type=int, default=1, help="processes that decode")
    parser.add_argument("--data", type=Path, help="videos with train/CLASS folders, or a list")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a model, dtype and whether compiled: of this process
    args = parser.parse_args()
    args.models = known if "all" in args.models else args.models
    return args


def main() -> None:
    args = parse()
    if args.one:
        print(json.dumps(measure(*json.loads(args.one), args)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = args.data or write_videos(Path(folder))
        passed = ("device", "batch", "steps", "warm_up", "workers", "threads")
        flags = [text for name in passed for text in (f"--{name.replace('_', '-')}", str(getattr(args, name)))]
        for name in args.models:
            for dtype in args.dtype:
                for compiled in (False, True) if args.compile else (False,):
                    command = [sys.executable, __file__, *flags, "--data", str(data)]
                    done = subprocess.run(
                        [*command, "--one", json.dumps([name, dtype, compiled])], capture_output=True, text=True
                    )
                    row = {"model": name, "dtype": dtype, "compiled": compiled}
                    failed = done.returncode != 0
                    rows.append({**row, "error": done.stderr.splitlines()[-1]} if failed else json.loads(done.stdout))
                    print(rows[-1], file=sys.stderr, flush=True)
    versions = f"PyTorch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}"
    setting = f"{machine(args.device)}; {versions}; batch {args.batch}, {args.workers} decoding"
    print(f"{setting}\n\n{report(rows)}")
    write_json(args.json, {"setting": setting, "rows": rows})


if __name__ == "__main__":
    main()
