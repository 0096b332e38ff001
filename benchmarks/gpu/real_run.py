"""`finetune` from files to weights, and the share of its time that it waits for data."""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path

from gpu.record import Record, significant


def run(record: Record, device: str) -> None:
    import sifa_zoo.training.epoch as epoch
    from sifa_zoo.preparing.motion import write_motion_clips
    from sifa_zoo.training.finetune import finetune

    shown: list[float] = []
    real = epoch.show_update

    def show_update(bar: object, **values: float) -> None:
        shown.append(values.get("data_wait", math.nan))
        real(bar, **values)

    epoch.show_update = show_update
    on_gpu = device == "cuda"
    # On a GPU, workers and precision are what a user gets who names none.
    train = {"epochs": 2, "batch_size": 16} if on_gpu else {"epochs": 1, "batch_size": 2, "workers": 0}
    clip = {"num_frames": 16, "frame_stride": 2, "img_size": 112} if on_gpu else {"num_frames": 4, "img_size": 32}
    with tempfile.TemporaryDirectory() as name, record.part("finetune"):
        count = 256 if on_gpu else 8
        videos = write_motion_clips(Path(name) / "videos", num_train=count, num_val=8, progress=False)
        start = time.perf_counter()
        options = {"model": "sifa_net_nano", "clip": clip, "train": train, "device": device}
        best = finetune(videos, output=Path(name) / "run", **options)
        record.row(
            "finetune",
            clips=count * train["epochs"],
            seconds=round(time.perf_counter() - start, 1),
            waiting=f"{shown[-1]:.0%}" if shown else "not shown",
            train_loss=significant(best["train_loss"]),
            val_top1=best["val_top1"],
        )
