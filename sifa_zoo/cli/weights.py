"""The command that lists models and weights."""

from __future__ import annotations

import argparse
import sys

from sifa_zoo.cli.flags import Commands


def add_commands(commands: Commands) -> None:
    """Add this module's commands to the parser of `sifa-zoo`."""
    _add_list(commands.add_parser("list", help="print the names of models"))


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_list)
    parser.add_argument("filter", metavar="FILTER", nargs="?", default="", help="pattern such as 'sifa_net*'")
    parser.add_argument("--pretrained", action="store_true", help="only names with weights that load today")


def _list(args: argparse.Namespace) -> int:
    from sifa_zoo.registry.names import list_models

    names = list_models(args.filter, pretrained=args.pretrained)
    if not names:
        kind = "no weights" if args.pretrained else "no model"
        print(f"{kind}{f' matching {args.filter!r}' if args.filter else ''} in this version", file=sys.stderr)
        return 1
    print("\n".join(names))
    return 0
