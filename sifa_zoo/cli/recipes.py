"""The command that prints recipes."""

from __future__ import annotations

import argparse

from sifa_zoo.cli.flags import Commands, setting_text
from sifa_zoo.recipes import Recipe, find_recipe, recipes


def add_commands(commands: Commands) -> None:
    """Add this module's commands to the parser of `sifa-zoo`."""
    _add_recipes(commands.add_parser("recipes", help="print the settings that --recipe stands for"))


def _add_recipes(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_recipes)
    parser.add_argument("name", metavar="NAME", nargs="?", help="one recipe (default: all, side by side)")


def _recipes(args: argparse.Namespace) -> int:
    chosen = {args.name: find_recipe(args.name)} if args.name else recipes()
    for name, recipe in chosen.items():
        print(f"{name}: {recipe.text}")
    columns = {name: {**recipe.clip, **vars(recipe.train)} for name, recipe in {**chosen, "default": Recipe()}.items()}
    settings = dict.fromkeys(setting for column in columns.values() for setting in column)
    table = [("", *columns)]
    table += [(name, *(setting_text(column.get(name, "-")) for column in columns.values())) for name in settings]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print("-: as the checkpoint or the model says")
    return 0
