"""`sifa-zoo` in processes of its own, of which a test can kill any one at any moment.

The processes are forked from a server that has imported everything, so that each costs little. What happens to one of
them is arranged in the process itself, by replacing functions there; the package knows nothing of it.
"""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
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
_CONTEXT.set_forkserver_preload(["sifa_zoo.cli", "sifa_zoo.training.finetune", "processes"])


@dataclass
class Ended:
    """The exit code of a process (negative: the signal that killed it) and what it wrote."""

    code: int | None
    text: str


def run_cli(argv: Sequence[str], folder: Path, *, ranks: int = 1, arrange: dict[int, Any] | None = None) -> list[Ended]:
    """Runs the command, as `torchrun` would with that many processes.

    Args:
        argv: Without `sifa-zoo`.
        folder: Where the outputs go.
        ranks: Processes.
        arrange: Functions that the process of a rank calls first.
    """
    calls = [partial(_cli, list(argv), (arrange or {}).get(rank)) for rank in range(ranks)]
    codes = run_functions(calls, folder)
    return [Ended(code, (folder / f"rank{rank}.txt").read_text()) for rank, code in enumerate(codes)]


def run_functions(functions: Sequence[Callable[[], None]], folder: Path, *, enough: int | None = None) -> list[int]:
    """Calls each function in a process of its own, with the environment of `torchrun`; returns the exit codes.

    Fails when not all (or not the first `enough`) have ended after `LIMIT_SECONDS`. None is left running.
    """
    folder.mkdir(parents=True, exist_ok=True)
    logs = [folder / f"rank{rank}.txt" for rank in range(len(functions))]
    started: list[BaseProcess] = []
    for environment, log, function in zip(_environments(len(functions)), logs, functions, strict=True):
        started.append(_CONTEXT.Process(target=_main, args=(function, environment, log)))
        started[-1].start()
    deadline = time.monotonic() + LIMIT_SECONDS
    for process in started[:enough]:
        process.join(max(0.0, deadline - time.monotonic()))
    hanging = [process.is_alive() for process in started]
    for process in started:
        process.kill()
        process.join()
    assert not any(hanging[:enough]), "a process hangs: " + "\n".join(log.read_text() for log in logs)
    return [process.exitcode or 0 for process in started]


def _environments(ranks: int) -> list[dict[str, str]]:
    if ranks == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def _main(function: Callable[[], None], environment: dict[str, str], log: Path) -> None:
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    function()


def _cli(argv: list[str], arrange: Callable[[], None] | None) -> None:
    from sifa_zoo.cli import main

    if arrange:
        arrange()
    sys.exit(main(argv))


# Arrangements.


def both(*arrangements: Callable[[], None]) -> None:
    for arrangement in arrangements:
        arrangement()


def before_update(number: int, action: Callable[[], None]) -> None:
    """Does something before the update of that number, from 1, of this process."""
    from sifa_zoo.training.learner import Learner

    real, calls = Learner.update, []

    def update(self: Any, **options: Any) -> None:
        calls.append(None)
        if len(calls) == number:
            action()
        real(self, **options)

    Learner.update = update  # type: ignore[method-assign]


def before_rename(number: int, action: Callable[[], None]) -> None:
    """Does something before the rename of that number of a file that was written beside."""
    os.replace = _counted(os.replace, number, action)


def before_fsync(number: int, action: Callable[[], None]) -> None:
    """Does something before a file is made safe, of that number and all later ones."""
    os.fsync = _counted(os.fsync, number, action, later=True)


def _counted(real: Callable[..., None], number: int, action: Callable[[], None], *, later: bool = False) -> Any:
    calls: list[None] = []

    def call(*args: Any) -> None:
        calls.append(None)
        if len(calls) == number or (later and len(calls) > number):
            action()
        real(*args)

    return call


def fill_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def move(source: Path, target: Path) -> None:
    os.rename(source, target)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def record(file: Path) -> None:
    """Appends the scalars of each update to a file."""
    from sifa_zoo.training import finetune as training

    real = training.Training._log_update

    def log_update(self: Any, scalars: dict[str, float], number: int) -> None:
        row = {name: scalars[name] for name in ("loss", "lr", "grad_norm")}
        with open(file, "a", encoding="utf-8") as lines:
            lines.write(json.dumps({"update": number, **row}) + "\n")
        real(self, scalars, number)

    training.Training._log_update = log_update  # type: ignore[method-assign]


def recorded(file: Path) -> dict[int, dict[str, float]]:
    """What `record` wrote, by update; of an update that came twice the later."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return {row["update"]: row for row in rows}


def kill_before_update(number: int) -> Callable[[], None]:
    return partial(before_update, number, partial(send, signal.SIGKILL))
