"""TensorBoard and Weights & Biases, on request: scalars per update and per epoch.

Both packages are optional. `log.csv` and `curve.png` need neither.
"""

from __future__ import annotations

import importlib
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

LogScalars: TypeAlias = Callable[[Mapping[str, float], int], None]

_MODULES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}
TRACKERS = tuple(_MODULES)
TENSORBOARD, WANDB_ID = "tensorboard", "wandb_id.txt"


def check_trackers(names: Sequence[str]) -> None:
    """Refuse, before a run begins, trackers that it could not log to.

    Raises:
        ValueError: If a name is not one of `TRACKERS`, or its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"log must be some of {', '.join(TRACKERS)}, got {name!r}")
        try:
            importlib.import_module(_MODULES[name])
        except ImportError as error:
            raise ValueError(f"logging to {name} needs a package that is not installed: pip install {name}") from error


@contextmanager
def open_trackers(
    names: Sequence[str], run: Path, *, settings: Mapping[str, Any], update: int = 0
) -> Iterator[LogScalars]:
    """A function that logs scalars, `log({"train/loss": 0.7}, update)`, to all of `names`, if any.

    Args:
        names: Some of `TRACKERS`.
        run: The run folder. TensorBoard's files go to `tensorboard` in it, those of W&B to `wandb`.
        settings: The run's settings, for W&B's table of runs.
        update: The update from which a resumed run continues; what a killed run logged after it is dropped.
    """
    openers = {"tensorboard": _open_tensorboard, "wandb": _open_wandb}
    with ExitStack() as stack:
        logs = [stack.enter_context(openers[name](run, settings, update)) for name in names]

        def log(scalars: Mapping[str, float], update: int) -> None:
            for one in logs:
                one(scalars, update)

        yield log


@contextmanager
def _open_tensorboard(run: Path, _settings: Mapping[str, Any], update: int) -> Iterator[LogScalars]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(os.fspath(run / TENSORBOARD), purge_step=update or None) as writer:

        def log(scalars: Mapping[str, float], update: int) -> None:
            for name, value in scalars.items():
                writer.add_scalar(name, value, update)

        yield log


@contextmanager
def _open_wandb(run: Path, settings: Mapping[str, Any], _update: int) -> Iterator[LogScalars]:
    import wandb

    file = run / WANDB_ID  # W&B forgets which run belongs to a folder when the run ends
    if not file.exists():
        file.write_text(uuid.uuid4().hex, encoding="utf-8")
    writer = wandb.init(
        project="sifa_zoo",
        name=run.resolve().name,
        config={key: str(value) for key, value in settings.items()},
        id=file.read_text(encoding="utf-8").strip(),
        resume="allow",
        dir=os.fspath(run),
    )
    with writer:
        yield lambda scalars, update: writer.log(dict(scalars), step=update)
