"""Training that is cut and resumed ends with the weights of training that is not.

By `finetune` on generated videos where videos can be written, and always by state dicts.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import tempfile
from pathlib import Path

import torch
from gpu.moving_task import clips, model_of
from gpu.record import LeftOut, Record
from torch.nn.functional import cross_entropy


def run(record: Record, device: str) -> None:
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # without which matrix products are not deterministic
    # A warning is enough: what is not deterministic shows in the weights.
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    with record.part("by state dicts"):
        unbroken, resumed = by_states(device, cut=False), by_states(device, cut=True)
        record.expect("the same weights after state dicts", same(unbroken, resumed))
    with record.part("by finetune"):
        if missing := [name for name in ("av", "torchvision") if importlib.util.find_spec(name) is None]:
            raise LeftOut(f"no {', '.join(missing)}")
        with tempfile.TemporaryDirectory() as folder:
            states = by_finetune(Path(folder), device)
        record.expect("the same weights after finetune --resume", same(*states))


def by_states(device: str, *, cut: bool, steps: int = 6) -> dict[str, torch.Tensor]:
    model = model_of("sifa_net_nano", device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(steps):
        if cut and step == steps // 2:
            saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
            model = model_of("sifa_net_nano", device).train()
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
            model.load_state_dict(saved[0])
            optimizer.load_state_dict(saved[1])
        clip, label = clips(step, 4, device)
        optimizer.zero_grad()
        cross_entropy(model(clip), label).backward()
        optimizer.step()
    return model.state_dict()


def by_finetune(folder: Path, device: str) -> list[dict[str, torch.Tensor]]:
    """A run of two epochs, and the same one interrupted as its first validation ends."""
    from safetensors.torch import load_file

    import sifa_zoo.training.finetune as training
    from sifa_zoo.preparing.motion import write_motion_clips

    videos = write_motion_clips(folder / "videos", num_train=16, num_val=8, progress=False)
    settings = {"epochs": 2, "batch_size": 4, "workers": 0, "precision": "fp32"}
    clip = {"num_frames": 4, "frame_stride": 2, "img_size": 32}
    options = {"model": "sifa_net_nano", "clip": clip, "train": settings, "device": device}
    training.finetune(videos, output=folder / "unbroken", **options)

    evaluate = training.evaluate

    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    training.evaluate = interrupt
    try:
        training.finetune(videos, output=folder / "cut", **options)
    except KeyboardInterrupt:
        pass
    finally:
        training.evaluate = evaluate
    training.finetune(videos, output=folder / "cut", resume=True, device=device)
    return [load_file(folder / run / "last.safetensors") for run in ("unbroken", "cut")]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())
