"""`sifa-zoo` in processes of its own, of which a test can kill any one at any moment.

The processes are forked from a server that has imported everything, so that each costs little. What happens to one of
them is arranged in the process itself, by replacing functions there; the package knows nothing of it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 60
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["sifa_zoo.cli", "sifa_zoo.engine.train", "processes"])


@dataclass
class Ended:
    """The exit code of a process (negative: the signal that killed it) and what it wrote."""

    code: int | None
    text: str


def run_cli(argv: Sequence[str], folder: Path, *, ranks: int = 1, arrange: dict[int, Any] | None = None) -> list[Ended]:
    """Runs the command, as `torchrun` would with that many processes; kills what is left after `LIMIT_SECONDS`.

    Args:
        argv: Without `sifa-zoo`.
        folder: Where the outputs go.
        ranks: Processes.
        arrange: Functions that the process of a rank calls first.
    """
    started = [_start(argv, folder, rank=rank, ranks=ranks, arrange=arrange) for rank in _environments(ranks)]
    deadline = time.monotonic() + LIMIT_SECONDS
    for process, _ in started:
        process.join(max(0.0, deadline - time.monotonic()))
    hanging = [process for process, _ in started if process.is_alive()]
    for process in hanging:
        process.kill()
        process.join()
    assert not hanging, "a process hangs: " + "\n".join(log.read_text() for _, log in started)
    return [Ended(process.exitcode, log.read_text()) for process, log in started]


def _environments(ranks: int) -> list[dict[str, str]]:
    if ranks == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def _start(
    argv: Sequence[str], folder: Path, *, rank: dict[str, str], ranks: int, arrange: dict[int, Any] | None
) -> tuple[BaseProcess, Path]:
    number = int(rank.get("RANK", 0))
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"rank{number}.txt"
    what = (arrange or {}).get(number)
    process = _CONTEXT.Process(target=_main, args=(list(argv), rank, log, what))
    process.start()
    return process, log


def _main(argv: list[str], environment: dict[str, str], log: Path, arrange: Callable[[], None] | None) -> None:
    from sifa_zoo.cli import main

    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if arrange:
        arrange()
    sys.exit(main(argv))


# Arrangements.


def both(*arrangements: Callable[[], None]) -> None:
    for arrangement in arrangements:
        arrangement()


def before_update(number: int, action: Callable[[], None]) -> None:
    """Does something before the update of that number, from 1, of this process."""
    from sifa_zoo.engine.learner import Learner

    real, calls = Learner.update, []

    def update(self: Any, **options: Any) -> None:
        calls.append(None)
        if len(calls) == number:
            action()
        real(self, **options)

    Learner.update = update  # type: ignore[method-assign]


def before_rename(number: int, action: Callable[[], None]) -> None:
    """Does something before the rename of that number of a file that was written beside."""
    real, calls = os.replace, []

    def replace(*args: Any) -> None:
        calls.append(None)
        if len(calls) == number:
            action()
        real(*args)

    os.replace = replace  # type: ignore[assignment]


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def record(file: Path) -> None:
    """Appends the scalars of each update to a file."""
    from sifa_zoo.engine import train

    real = train._Training._after_update

    def after_update(self: Any, scalars: dict[str, float]) -> None:
        row = {name: scalars[name] for name in ("loss", "lr", "grad_norm")}
        with open(file, "a", encoding="utf-8") as lines:
            lines.write(json.dumps({"update": self.learner.updates, **row}) + "\n")
        real(self, scalars)

    train._Training._after_update = after_update  # type: ignore[method-assign]


def recorded(file: Path) -> dict[int, dict[str, float]]:
    """What `record` wrote, by update; of an update that came twice the later."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return {row["update"]: row for row in rows}


def kill_before_update(number: int) -> Callable[[], None]:
    return partial(before_update, number, partial(send, signal.SIGKILL))
