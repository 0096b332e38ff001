"""The command `sifa-zoo`: one file per room, with its flags and what it prints.

In: words of a command line. Out: calls of the rooms below, and an exit code. Uses all rooms, which are imported when a
command runs, so that help needs no torch. Most flags come from the settings' dataclasses.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from sifa_zoo import __version__
from sifa_zoo.cli import evaluation, inference, ops, preparing, publishing, training, weights


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: 2 for a mistake in the call, its settings and data included; 1 for an incomplete result, or if
        something went wrong on the way (a full disk, a loss that is not finite, a video that cannot be read, data that
        are gone); 130 or 143 after Ctrl-C or SIGTERM.
    """
    args = build_parser().parse_args(argv)
    try:
        return args.command(args)
    except BrokenPipeError:  # `sifa-zoo list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, TypeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return _exit_code(error)
    except OSError as error:
        print(f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return training.INTERRUPTED


def _exit_code(error: BaseException) -> int:
    """The exit code of the error, or else of its cause; 2, for a mistake in the call, if neither has one."""
    code: int = getattr(error, "exit_code", getattr(error.__cause__, "exit_code", 2))
    return code


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(prog="sifa-zoo", description="Video models with inter-frame attention.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in (training, evaluation, inference, preparing, weights, publishing, ops):
        module.add_commands(commands)
    return parser
