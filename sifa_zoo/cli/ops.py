"""The commands about this machine: kernels and versions."""

from __future__ import annotations

import argparse
import platform
import sys

from sifa_zoo import __version__
from sifa_zoo.cli.flags import Commands


def add_commands(commands: Commands) -> None:
    """Add this module's commands to the parser of `sifa-zoo`."""
    _add_build_ops(commands.add_parser("build-ops", help="compile the native kernels of the operator"))
    commands.add_parser("doctor", help="print versions, and which kernels run here and why").set_defaults(
        command=_doctor
    )


def _add_build_ops(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_build_ops)
    device_help = "kernels to compile (default: cpu, and cuda if there is a GPU)"
    parser.add_argument("--device", choices=("cpu", "cuda"), help=device_help)
    parser.add_argument("--force", action="store_true", help="compile even if they are already built")


def _build_ops(args: argparse.Namespace) -> int:
    from sifa_zoo import ops

    try:
        for built in ops.build(args.device, force=args.force):
            print(built)
    except ops.BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _doctor(_args: argparse.Namespace) -> int:
    from sifa_zoo.ops import native

    for name, value in (_versions() | native.report()).items():
        print(f"{name:16} {value}")
    reasons = {device: native.why_plain(device, may_build=False) for device in native.wanted_devices()}
    for device, reason in reasons.items():
        if reason:
            print(f"\n!! On {device}, {native.SLOW}:\n!! {reason}", file=sys.stderr)
    return int(any(reasons.values()))


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"sifa_zoo": __version__, "Python": platform.python_version(), "machine": platform.platform()}
    for package in ("torch", "torchvision", "timm", "huggingface_hub", "safetensors", "av", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
