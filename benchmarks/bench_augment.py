"""Colour jitter and blur of training clips: torchvision's v2 transforms against ours, CPU milliseconds per clip.

    python benchmarks/bench_augment.py [--json FILE] [--rounds N]

A clip is 16 frames as the k400 recipe has them after its crop: uint8, 224 x 224, three values per pixel side by side in
memory. One thread; the two are timed in turn on the same draws; figures are medians over the draws. Each step counts as
if every clip had it; "k400" are all steps after decoding with the recipe's probabilities, its mean over the draws.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from measure import benchmark_parser, machine, markdown_table, write_json
from torch import Tensor
from torchvision.transforms import v2

from sifa_zoo.config import AugmentConfig, ClipConfig
from sifa_zoo.datasets.colour_jitter import ClipColorJitter
from sifa_zoo.datasets.transforms import SeparableBlur, train_transform
from sifa_zoo.training.recipes import k400

Transform = Callable[[Tensor], Tensor]


def smooth_frames(num_frames: int, height: int, width: int) -> Tensor:
    """Random colours without edges, uint8 `(T, C, H, W)`, in memory as decoded frames are."""
    coarse = torch.randint(256, (num_frames, 3, height // 8, width // 8), generator=torch.Generator().manual_seed(0))
    fine = torch.nn.functional.interpolate(coarse.float(), (height, width), mode="bicubic")
    return fine.clamp(0, 255).byte().contiguous(memory_format=torch.channels_last)


def plain_transform(clip: ClipConfig, augment: AugmentConfig) -> Transform:
    """`train_transform` of the k400 recipe in torchvision's own transforms."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(
                clip.img_size, (augment.crop_scale, 1.0), (1 / augment.crop_ratio, augment.crop_ratio)
            ),
            v2.RandomApply([v2.ColorJitter(*augment.color_jitter)], augment.color_jitter_prob),
            v2.RandomGrayscale(augment.grayscale_prob),
            v2.RandomApply([v2.GaussianBlur(13, augment.blur_sigma)], augment.blur_prob),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(clip.mean, clip.std),
            v2.Lambda(lambda frames: frames.transpose(0, 1).contiguous()),
        ]
    )


def cpu_ms(transform: Transform, frames: Tensor, seed: int) -> float:
    torch.manual_seed(seed)
    start = time.process_time()
    transform(frames)
    return 1e3 * (time.process_time() - start)


def measure(pair: tuple[Transform, Transform], frames: Tensor, rounds: int) -> list[tuple[float, float]]:
    """The cost of both in each round; the first round is not counted."""
    costs = [(cpu_ms(pair[0], frames, seed), cpu_ms(pair[1], frames, seed)) for seed in range(rounds + 1)]
    return costs[1:]


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe = k400()
    augment, clip = recipe.train, ClipConfig(**recipe.clip)
    decoded = smooth_frames(clip.num_frames, 256, 340)
    cropped = v2.functional.resize(decoded, [clip.img_size, clip.img_size])
    steps: dict[str, tuple[Transform, Transform]] = {
        "colour jitter": (v2.ColorJitter(*augment.color_jitter), ClipColorJitter(*augment.color_jitter)),
        "blur": (v2.GaussianBlur(13, augment.blur_sigma), SeparableBlur(13, augment.blur_sigma)),
    }
    rows = {}
    for name, pair in steps.items():
        rows[name] = list(map(statistics.median, zip(*measure(pair, cropped, args.rounds), strict=True)))
    rows["jitter + blur"] = [sum(costs) for costs in zip(*rows.values(), strict=True)]
    whole = (plain_transform(clip, augment), train_transform(clip, augment))
    rows["k400"] = list(map(statistics.fmean, zip(*measure(whole, decoded, args.rounds), strict=True)))
    print(machine("cpu"), "\n")
    lines = [(name, f"{old:.1f}", f"{new:.1f}", f"{old / new:.1f}") for name, (old, new) in rows.items()]
    print(markdown_table(["step", "torchvision, CPU ms", "ours, CPU ms", "torchvision / ours"], lines))
    figures = {name: {"torchvision": old, "ours": new} for name, (old, new) in rows.items()}
    write_json(args.json, {"machine": machine("cpu"), "cpu_ms": figures})


if __name__ == "__main__":
    main()
