"""Flags that several commands share, and checks of the files that flags name."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import os
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

WEIGHTS_HELP = "run folder, weights file, or name of weights"
_METAVARS = {int: "N", int | None: "N", float: "X", float | None: "X"}


def add_settings(
    parser: argparse.ArgumentParser,
    config: type,
    title: str | None = None,
    *,
    show_defaults: bool = False,
    without: type | None = None,
) -> None:
    """Adds a flag per field of a settings dataclass, except for the fields of the class `without`.

    They form a group of that title, up to a field that begins a group of its own. A flag that is not given is absent
    from the namespace.
    """
    types = typing.get_type_hints(config)
    left_out = {field.name for field in dataclasses.fields(without)} if without else set()
    group = parser.add_argument_group(title) if title else parser
    for field in dataclasses.fields(config):
        if field.name in left_out:
            continue
        if "group" in field.metadata:
            group = parser.add_argument_group(field.metadata["group"])
        unset = {int | None: "auto", float | None: "none"}.get(types[field.name], "nothing")
        value = "" if field.default is None else setting_text(field.default)
        default = f" (default: {value or unset})" if show_defaults else ""
        text = field.metadata["help"] + default
        options: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS, "help": text.replace("%", "%%")}
        if types[field.name] is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif isinstance(field.default, tuple):
            options |= {"type": float, "nargs": len(field.default), "metavar": "X"}
        else:
            metavar = field.metadata.get("metavar") or _METAVARS.get(types[field.name], "NAME")
            options |= {"type": _value_parser(types[field.name]), "metavar": metavar}
        group.add_argument(f"--{field.name.replace('_', '-')}", **options)


def shorten_help(parser: argparse.ArgumentParser, *shown: str) -> None:
    """Makes `--help` show these flags, by their names in the namespace; `--help-all` shows all. To be called last."""
    hidden = {action: action.help for action in parser._actions if action.dest not in ("help", *shown)}
    for action in hidden:
        action.help = argparse.SUPPRESS
    parser.add_argument("--help-all", action=_HelpAll, hidden=hidden, help="show all flags, in groups, and exit")


class _HelpAll(argparse.Action):
    """Prints the help with the flags that `--help` hides."""

    def __init__(
        self, option_strings: Sequence[str], dest: str, *, hidden: Mapping[argparse.Action, str | None], help: str
    ) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)
        self.hidden = hidden

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        for action, text in self.hidden.items():
            action.help = text
        parser.print_help()
        parser.exit()


def given(args: argparse.Namespace, config: type) -> dict[str, Any]:
    """The settings of a dataclass that flags gave."""
    return {f.name: getattr(args, f.name) for f in dataclasses.fields(config) if hasattr(args, f.name)}


def flags_of(settings: Mapping[str, Any]) -> list[str]:
    """Settings as words of a command line; those that are off or None are left out."""
    words = []
    for name, value in settings.items():
        if value is not None and value is not False:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [setting_text(value)])]
    return words


def positive_int(text: str) -> int:
    """Parses the value of a flag that must be a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def add_device(parser: argparse._ActionsContainer) -> None:
    """Adds `--device`."""
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: the GPU if there is one)")


def add_model_args(parser: argparse._ActionsContainer) -> None:
    """Adds `--model-args`."""
    text = "arguments of the model's constructor, such as dilation=2"
    parser.add_argument("--model-args", metavar="KEY=VALUE", nargs="+", type=_key_value, default=[], help=text)


def setting_text(value: Any) -> str:
    """A setting as it is written on the command line."""
    if isinstance(value, tuple):
        return " ".join(map(setting_text, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _value_parser(annotation: Any) -> Any:
    """The function that parses the text of a flag whose setting has this type."""
    if annotation == float | None:
        return _number_or_none
    if annotation == int | None:
        return _number_or_auto
    return str if annotation == str | None else annotation


def _number_or_none(text: str) -> float | None:
    return None if text.lower() == "none" else float(text)


def _number_or_auto(text: str) -> int | None:
    return None if text.lower() == "auto" else int(text)


def _key_value(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text!r}")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def check_writable(file: str | None, *, suffixes: tuple[str, ...] = ()) -> None:
    """Refuses a file that cannot be written, before any work is done for it."""
    if file is None:
        return
    path = Path(file)
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"expected a file ending in {', '.join(suffixes)}, got {file!r}")
    if path.is_dir():
        raise ValueError(f"cannot write {file}: it is a folder")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise ValueError(f"cannot write {file}: the folder does not exist, or the folder or file is read-only")
