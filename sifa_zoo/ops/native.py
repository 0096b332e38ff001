"""Finds, builds and loads the native kernels of the operator, and says why they are not there.

Three tiers: plain PyTorch always works; a wheel may contain the compiled object; else it is compiled once, at the
first use on real tensors or by `sifa-zoo build-ops`, into a cache. Nothing is loaded or compiled at import or while a
graph is traced. Environment:

    SIFA_ZOO_OPS=torch    plain PyTorch only
    SIFA_ZOO_OPS=nobuild  load what is there, compile nothing
    SIFA_ZOO_CACHE        where compiled objects are kept; ~/.cache/sifa_zoo (or that of XDG_CACHE_HOME) by default
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path

import filelock
import torch

from sifa_zoo.ops.build import OBJECT_NAME, BuildError, compile_object, find_compiler, find_nvcc, key

_PACKAGED = Path(__file__).with_name(OBJECT_NAME)
_DEVICES = ("cuda", "cpu")
_LOCK = threading.Lock()
_BUILD_TIMEOUT_SECONDS = 600.0
_FAILED = "failed.txt"


def backends() -> dict[str, bool | str]:
    """Which implementations of the operator can run now. Loads what is already compiled, and compiles nothing.

    Returns:
        For each backend True, or the reason why it cannot run and what makes it run.
    """
    found = _load(may_build=False)
    return {device: is_loaded(device) or _why_not(device, found) for device in _DEVICES} | {"torch": True}


def build(*, cuda: bool | None = None, force: bool = False) -> Path:
    """Compile the native kernels into the cache, unless they are there, and load them if none are loaded yet.

    Args:
        cuda: With the CUDA kernels; by default if a GPU is visible.
        force: Compile in any case.

    Returns:
        The shared object.

    Raises:
        BuildError: If that is not possible, saying why.
    """
    archs = cuda_archs() if cuda is None else (cuda_archs() or _default_archs()) if cuda else ()
    target = _build(archs, force=force)
    _find.cache_clear()
    _load(may_build=False)
    return target


def load_for(device_type: str) -> bool:
    """Whether the dispatcher has a native kernel for the device, after loading or compiling it where that is possible.

    Warns once for each device if it has not, unless that was asked for.
    """
    if device_type not in _DEVICES:
        return False
    if not is_loaded(device_type):
        found = _load(may_build=True)
        if not is_loaded(device_type):
            _warn(device_type, _why_not(device_type, found))
            return False
    return True


def is_loaded(device_type: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key("sifa::inter_frame_attention", device_type.upper())


def cache_folder() -> Path:
    """Where compiled objects are kept."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "sifa_zoo")
    return Path(os.environ.get("SIFA_ZOO_CACHE") or default)


def cuda_archs() -> tuple[str, ...]:
    """Compute capabilities to compile for: `$TORCH_CUDA_ARCH_LIST`, or those of the visible GPUs."""
    wanted = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(";", " ").split()
    if wanted and torch.version.cuda:
        return tuple(wanted)
    if not torch.cuda.is_available() or torch.version.hip:
        return ()
    capabilities = {torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())}
    return tuple(f"{major}.{minor}" for major, minor in sorted(capabilities))


def report() -> dict[str, str]:
    """What runs here and why, line by line, for `sifa-zoo doctor`."""
    state = backends()
    found = _load(may_build=False)
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        **{f"backend {name}": "runs" if value is True else str(value) for name, value in state.items()},
        "object": str(found) if isinstance(found, Path) else "none",
        "instruction set": _instruction_set(found) if isinstance(found, Path) else "-",
        "threads": str(torch.get_num_threads()),
        "GPUs": ", ".join(gpus) or "none visible",
        "compiler": find_compiler() or "none",
        "nvcc": find_nvcc() or "none",
        "cache": str(cache_folder()),
        "SIFA_ZOO_OPS": os.environ.get("SIFA_ZOO_OPS") or "not set",
    }


def _default_archs() -> tuple[str, ...]:
    from sifa_zoo.ops.build import CUDA_ARCHS

    return CUDA_ARCHS


def _load(*, may_build: bool) -> Path | str:
    """The object that is loaded, or why there is none."""
    with _LOCK:
        found = _find(may_build)
        if isinstance(found, Path) and not any(map(is_loaded, _DEVICES)):
            try:
                torch.ops.load_library(str(found))
            except OSError as error:
                return f"{found} does not load ({error}); `sifa-zoo build-ops --force` compiles it anew"
        return found


@functools.cache
def _find(may_build: bool) -> Path | str:
    mode = os.environ.get("SIFA_ZOO_OPS", "")
    if mode not in ("", "torch", "nobuild"):
        return f"SIFA_ZOO_OPS must be 'torch' or 'nobuild', got {mode!r}"
    if mode == "torch":
        return "switched off by SIFA_ZOO_OPS=torch"
    archs = cuda_archs()
    candidates = [_cached(archs), _PACKAGED] if archs else [_PACKAGED, _cached(())]
    for candidate in [*candidates, _cached(())]:
        if candidate.is_file():
            return candidate
    if mode == "nobuild":
        return "not compiled, and SIFA_ZOO_OPS=nobuild; `sifa-zoo build-ops` compiles it"
    if not may_build:
        return "not compiled yet: first use does it, or `sifa-zoo build-ops`"
    try:
        return _build(archs if find_nvcc() else (), force=False)
    except BuildError as error:
        return str(error)


def _cached(archs: Sequence[str]) -> Path:
    return cache_folder() / key(archs) / OBJECT_NAME


def _build(archs: Sequence[str], *, force: bool) -> Path:
    target = _cached(archs)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(target.parent / "lock", timeout=_BUILD_TIMEOUT_SECONDS):
            if force or not target.is_file():  # another process may have been first
                compile_object(target, archs)
    except filelock.Timeout as error:
        raise BuildError(f"another process has held {error.lock_file} for {_BUILD_TIMEOUT_SECONDS:.0f} s") from error
    except OSError as error:
        raise BuildError(f"cannot write to the cache {target.parent} ({error}); set SIFA_ZOO_CACHE") from error
    return target


def _why_not(device_type: str, found: Path | str) -> str:
    if isinstance(found, str):
        return found
    if not torch.cuda.is_available():
        return "no GPU is visible to PyTorch"
    return f"{found} has no CUDA kernels; `sifa-zoo build-ops --cuda` compiles them (nvcc: {find_nvcc() or 'none'})"


@functools.cache
def _warn(device_type: str, reason: str) -> None:
    if os.environ.get("SIFA_ZOO_OPS") != "torch":
        warnings.warn(
            f"inter_frame_attention runs in plain PyTorch on {device_type}, many times slower: {reason}", stacklevel=3
        )


def _instruction_set(path: Path) -> str:
    function = ctypes.CDLL(str(path)).sifa_instruction_set
    function.restype = ctypes.c_char_p
    return function().decode()
