"""A start for SIFA-Transformer on the motion clips: the same eight motions, but of whole pictures, drawn when needed.

    python benchmarks/pretrain_motion.py --output runs/ablation/start.safetensors

From the clips alone, where a small shape moves, `sifa_transformer_nano` learned nothing within 10 epochs with several
optimisers. Here every location moves, and it learns the motions within minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from timm.optim import create_optimizer_v2
from torch import Tensor
from torch.nn import functional as F
from tqdm import trange

import sifa_zoo
from sifa_zoo.files import write_files
from sifa_zoo.preparing.motion import CLASSES
from sifa_zoo.runtime.checkpoint import clip_config, pack_weights
from sifa_zoo.weights.info import WeightsInfo

NUM_FRAMES, SIZE = 8, 48
TEXTURES, TEXTURE_SIZE = 256, 128
QUANTITY = {"left": 0, "right": 0, "up": 1, "down": 1, "grow": 2, "shrink": 2, "clockwise": 3, "counterclockwise": 3}
FORWARD = ("right", "down", "grow", "clockwise")


def draw_textures(generator: torch.Generator) -> Tensor:
    """Pictures `(N, 3, S, S)` of noise whose amplitude falls with the frequency, of deviation 1."""
    size = TEXTURE_SIZE
    frequency = torch.hypot(torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size))
    frequency[0, 0] = torch.inf  # no mean
    noise = torch.randn(TEXTURES, 3, size, size, generator=generator)
    textures = torch.fft.irfft2(torch.fft.rfft2(noise) * frequency**-1.2, s=(size, size))
    return textures / textures.std((1, 2, 3), keepdim=True)


def draw_clips(textures: Tensor, num_clips: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Clips `(B, 3, T, H, W)` of one motion each, 1.4 to 3 pixels a frame, and their labels `(B,)` in `CLASSES`."""
    labels = torch.randint(len(CLASSES), (num_clips,), generator=generator)
    names = [CLASSES[label] for label in labels]
    quantity = torch.tensor([QUANTITY[name] for name in names])[:, None]
    sign = torch.tensor([1.0 if name in FORWARD else -1.0 for name in names])[:, None]
    speed = 0.06 + 0.07 * torch.rand(num_clips, 1, generator=generator)
    phase = sign * speed * (torch.arange(NUM_FRAMES) - NUM_FRAMES / 2)  # (B, T)
    start = torch.rand(num_clips, 3, generator=generator)

    zoom = 0.4 * torch.where(quantity == 2, torch.exp(-0.8 * phase), 1.0)
    angle = torch.where(quantity == 3, 2 * torch.pi * start[:, 2:] - 1.2 * phase, 0.0)
    x = torch.where(quantity == 0, -0.4 * phase, 0.0) + 0.4 * (start[:, :1] - 0.5)
    y = torch.where(quantity == 1, -0.4 * phase, 0.0) + 0.4 * (start[:, 1:2] - 0.5)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    maps = torch.stack([cos, -sin, x, sin, cos, y], -1).view(-1, 2, 3)  # (B*T, 2, 3)
    grid = F.affine_grid(maps, [len(maps), 3, SIZE, SIZE], align_corners=False)
    chosen = textures[torch.randint(TEXTURES, (num_clips,), generator=generator)]
    pictures = chosen.repeat_interleave(NUM_FRAMES, 0)
    frames = F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)
    return frames.unflatten(0, (num_clips, NUM_FRAMES)).transpose(1, 2).contiguous(), labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--model", default="sifa_transformer_nano", help="default: sifa_transformer_nano")
    parser.add_argument("--steps", type=int, default=700, help="batches of 16 clips (default: 700)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    model = sifa_zoo.create_model(args.model, num_classes=len(CLASSES), num_frames=NUM_FRAMES, img_size=SIZE)
    optimizer = create_optimizer_v2(model, "muon", lr=0.01, weight_decay=0.02)
    textures = draw_textures(generator)
    losses = []
    for _ in (bar := trange(args.steps)):
        clips, labels = draw_clips(textures, 16, generator)
        loss = F.cross_entropy(model(clips), labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{sum(losses[-50:]) / len(losses[-50:]):.3f}")
    print(f"loss of the last 50 batches: {sum(losses[-50:]) / 50:.3f}")
    info = WeightsInfo(args.model, CLASSES, clip_config(model), version=sifa_zoo.__version__)
    write_files({args.output: pack_weights(model.state_dict(), info)})


if __name__ == "__main__":
    main()
