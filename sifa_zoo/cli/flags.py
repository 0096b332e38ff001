"""Flags that several commands share, and checks of what they name."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_settings(
    group: argparse._ActionsContainer, config: type, *, show_defaults: bool = False, besides: type | None = None
) -> None:
    """One flag per field of a settings dataclass, but for those of the class `besides`.

    A flag that is not given is absent from the namespace.
    """
    types = typing.get_type_hints(config)
    left_out = {field.name for field in dataclasses.fields(besides)} if besides else set()
    for field in dataclasses.fields(config):
        if field.name in left_out:
            continue
        text = field.metadata["help"] + (f" (default: {shown(field.default)})" if show_defaults else "")
        options: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS, "help": text.replace("%", "%%")}
        options |= {"metavar": field.metadata["metavar"]} if "metavar" in field.metadata else {}
        if types[field.name] is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif isinstance(field.default, tuple):
            options |= {"type": float, "nargs": len(field.default)}
        else:
            options["type"] = _parser(types[field.name])
        group.add_argument(f"--{field.name.replace('_', '-')}", **options)


def given(args: argparse.Namespace, config: type) -> dict[str, Any]:
    """The settings of a dataclass that were given as flags."""
    return {f.name: getattr(args, f.name) for f in dataclasses.fields(config) if hasattr(args, f.name)}


def flags_of(settings: Mapping[str, Any]) -> list[str]:
    """Settings as words of a command line; those that are turned off or None are left out."""
    words = []
    for name, value in settings.items():
        if value is not None and value is not False:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [shown(value)])]
    return words


def positive(text: str) -> int:
    """A whole number of at least 1, as a flag's value."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def add_model_args(parser: argparse.ArgumentParser) -> None:
    text = "arguments of the model's constructor, such as dilation=2"
    parser.add_argument("--model-args", metavar="KEY=VALUE", nargs="+", type=_key_value, default=[], help=text)


def shown(value: Any) -> str:
    """A setting as it is written on the command line."""
    if isinstance(value, tuple):
        return " ".join(map(shown, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _parser(annotation: Any) -> Any:
    """What reads a flag's text."""
    if annotation == float | None:
        return _number_or_none
    return str if annotation == str | None else annotation


def _number_or_none(text: str) -> float | None:
    return None if text.lower() == "none" else float(text)


def _key_value(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text!r}")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def check_writable(file: str | None, *, suffixes: tuple[str, ...] = ()) -> None:
    """Refuse a file that could not be written, before the work that it is to hold."""
    if file is None:
        return
    path = Path(file)
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"expected a file ending in {', '.join(suffixes)}, got {file!r}")
    if path.is_dir():
        raise ValueError(f"cannot write {file}: it is a folder")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise ValueError(f"cannot write {file}: the folder does not exist, or something is read-only")
