"""The command `sifa-zoo`. Flags come from the settings' dataclasses; torch is imported when a command runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from sifa_zoo import __version__
from sifa_zoo.cli import data, evaluate, predict, recipes, system, train, weights


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 2 for a mistake in the call, 1 for an incomplete result or a full disk."""
    args = _parser().parse_args(argv)
    try:
        return args.command(args)
    except BrokenPipeError:  # `sifa-zoo list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, TypeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return train.INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sifa-zoo", description="Video models with inter-frame attention.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in (train, recipes, evaluate, predict, data, weights, system):
        module.add_commands(commands)
    return parser
