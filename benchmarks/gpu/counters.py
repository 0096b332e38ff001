"""Counters of the kernels by Nsight Compute, where it is there and may be used."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import sys

from gpu.record import LeftOut, Record

METRICS = {
    "gpu__time_duration.sum": "ns",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "SM busy %",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "DRAM %",
    "launch__registers_per_thread": "registers",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "occupancy %",
}
SCRIPT = """
import torch
from sifa_zoo.ops import inter_frame_attention
x = torch.randn(8, 128, 8, 56, 56, device="cuda", dtype=torch.bfloat16).to(memory_format=torch.channels_last_3d)
offset = torch.randn(8, 18, 8, 56, 56, device="cuda").to(memory_format=torch.channels_last_3d)
x, offset = x.requires_grad_(), offset.requires_grad_()
out = inter_frame_attention(x, offset)
torch.autograd.grad(out, (x, offset), torch.ones_like(out))
"""


def run(record: Record, device: str) -> None:
    ncu = shutil.which("ncu") or shutil.which("/usr/local/cuda/bin/ncu")
    if ncu is None:
        raise LeftOut("no ncu")
    command = [ncu, "--csv", "--page", "raw", "--metrics", ",".join(METRICS), "--launch-count", "40"]
    command += ["--kernel-name", "regex:attention|query_gradient|scatter|gather|forward", sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith('"')]
    rows = list(csv.DictReader(io.StringIO("\n".join(lines))))
    if not rows:
        raise LeftOut("ncu gave no counters: " + (done.stdout + done.stderr)[-300:].strip().replace("\n", " "))
    for row in rows:
        if row.get("Kernel Name"):
            record.row(
                "128 channels, 56x56, bf16",
                kernel=row["Kernel Name"][:60],
                **{title: row.get(metric) for metric, title in METRICS.items()},
            )
