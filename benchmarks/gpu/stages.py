"""The stages of `gpu_check.py`: what each is called, what it needs, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """`module.run(record, device)` does the work in a process of its own.

    `seconds` is its limit on a GPU and `seconds_cpu` in small on a CPU. `needs` are packages without which it is left
    out.
    """

    name: str
    module: str
    seconds: float
    seconds_cpu: float
    needs: tuple[str, ...] = ()
    needs_gpu: bool = False


STAGES = (
    Stage("build", "gpu.build", 40, 60),
    Stage("tests", "gpu.device_tests", 75, 60, needs=("pytest",)),
    Stage("operator", "gpu.operator_times", 35, 30),
    Stage("training", "gpu.training_falls", 75, 60),
    Stage("resume", "gpu.resumed", 20, 60),
    Stage("distributed", "gpu.one_process", 25, 40),
    Stage("models", "gpu.models_and_trunks", 155, 60),
    Stage("finetune", "gpu.real_run", 35, 40, needs=("av", "torchvision")),
    Stage("counters", "gpu.counters", 15, 15, needs_gpu=True),
)
NAMES = tuple(stage.name for stage in STAGES)
