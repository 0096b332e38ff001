"""Finds, builds and loads the native kernels of the operator, or says why there are none.

Three tiers: plain PyTorch always works; a wheel may contain the compiled object of a device; else it is compiled once,
at the first use on real tensors or by `sifa-zoo build-ops`, into a cache. Nothing is loaded or compiled at import or
while a graph is traced. Environment:

    SIFA_ZOO_OPS=torch    plain PyTorch only
    SIFA_ZOO_OPS=nobuild  load what is there, compile nothing
    SIFA_ZOO_CACHE        where compiled objects are kept, ~/.cache/sifa_zoo by default (XDG_CACHE_HOME is heeded)
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import warnings
from pathlib import Path

import filelock
import torch

from sifa_zoo.ops.compiler import (
    CUDA_ARCHS,
    BuildError,
    CompilerError,
    build_key,
    compile_object,
    find_compiler,
    find_nvcc,
    object_name,
    wanted_archs,
)
from sifa_zoo.ops.kernels import Kernels

DEVICES = ("cuda", "cpu")

SLOW = "the operators of SIFA run in plain PyTorch, many times slower"

_PACKAGED = Path(__file__).parent
_LOCK = threading.Lock()
_LOADED: dict[str, Kernels] = {}  # by device; an object stays loaded as long as the process
_BUILD_TIMEOUT_SECONDS = 600.0


def backends() -> dict[str, bool | str]:
    """Which implementations of the operator can run now. Loads what is already compiled, and compiles nothing.

    Returns:
        For each backend True, or the reason why it cannot run, with what makes it run.
    """
    found = {device: load(device, may_build=False) for device in DEVICES}
    return {name: True if isinstance(value, Kernels) else value for name, value in found.items()} | {"torch": True}


def build(device: str | None = None, *, force: bool = False) -> list[Path]:
    """Compile the native kernels into the cache unless they are there; they are loaded when next used.

    Args:
        device: "cpu" or "cuda"; by default "cpu", and "cuda" too if a GPU is visible. With "cuda" and no GPU, all
            architectures are compiled, or those of `$TORCH_CUDA_ARCH_LIST`.
        force: Compile even so. A process that has loaded the old object keeps it.

    Returns:
        The shared objects.

    Raises:
        BuildError: If that is not possible; it says why.
        ValueError: If there is no such device.
    """
    if device not in (None, *DEVICES):
        raise ValueError(f"device must be one of {DEVICES}, got {device = }")
    wanted = [device] if device else wanted_devices()
    built = [_build(device, force=force) for device in wanted]
    kernels_for.cache_clear()
    return built


def load(device: str, *, may_build: bool) -> Kernels | str:
    """The kernels of a device, compiled first where that is needed and `may_build`; or why there are none."""
    with _LOCK:
        if device in _LOADED:
            return _LOADED[device]
        try:
            if device == "cuda" and not _has_gpu():
                return "no GPU is visible to PyTorch"
            path = _find(device)
            if path is None:
                if not may_build:
                    return _not_yet(device)
                path = _build(device)
            return _LOADED.setdefault(device, Kernels(path, device))
        except BuildError as error:
            return str(error)
        except OSError as error:
            return f"the compiled object does not load ({error}); `sifa-zoo build-ops --force` compiles it again"


@functools.cache
def kernels_for(device: str) -> Kernels | None:
    """The kernels of a device, loaded or compiled where that is possible.

    Warns if there are none, unless plain PyTorch was asked for.
    """
    if device not in DEVICES:
        return None
    if reason := why_plain(device):
        warnings.warn(f"on {device}, {SLOW}: {reason}", stacklevel=2)
    found = load(device, may_build=True)
    return found if isinstance(found, Kernels) else None


def why_plain(device: str, *, may_build: bool = True) -> str:
    """Why the operators run in plain PyTorch on a device of this type; empty if they do not, or if that was asked for.

    It is also empty where the kernels are not compiled yet, and must not be now.
    """
    if device not in DEVICES or os.environ.get("SIFA_ZOO_OPS") == "torch":
        return ""
    found = load(device, may_build=may_build)
    return found if isinstance(found, str) and found != _not_yet(device) else ""


def _not_yet(device: str) -> str:
    return f"not compiled yet: the first use on {device} compiles it, or `sifa-zoo build-ops` does"


def wanted_devices() -> list[str]:
    """The devices of this machine."""
    return ["cpu", *(["cuda"] if _has_gpu() else [])]


def cache_folder() -> Path:
    """Where compiled objects are kept."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "sifa_zoo")
    return Path(os.environ.get("SIFA_ZOO_CACHE") or default)


def report() -> dict[str, str]:
    """What runs here and why, line by line, for `sifa-zoo doctor`."""
    state = {f"backend {name}": "runs" if value is True else str(value) for name, value in backends().items()}
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return state | {
        "CPU kernels use": _LOADED["cpu"].instruction_set if "cpu" in _LOADED else "-",
        "threads": str(torch.get_num_threads()),
        "GPUs": ", ".join(gpus) or "none visible",
        "C++ compiler": find_compiler() or "none",
        "nvcc": find_nvcc() or "none",
        "cache": str(cache_folder()),
        "SIFA_ZOO_OPS": os.environ.get("SIFA_ZOO_OPS") or "not set",
    }


def _find(device: str) -> Path | None:
    mode = os.environ.get("SIFA_ZOO_OPS", "")
    if mode not in ("", "torch", "nobuild"):
        raise BuildError(f"SIFA_ZOO_OPS must be 'torch' or 'nobuild', got {mode!r}")
    if mode == "torch":
        raise BuildError("switched off by SIFA_ZOO_OPS=torch")
    target = _cached(device)
    found = next((path for path in (_PACKAGED / target.name, target) if path.is_file()), None)
    if found is None and mode == "nobuild":
        raise BuildError("not compiled, and SIFA_ZOO_OPS=nobuild; `sifa-zoo build-ops` compiles it")
    if found is None and _failure(target).is_file():
        raise BuildError(_failure(target).read_text() + "; `sifa-zoo build-ops` tries again")
    return found


def _cached(device: str) -> Path:
    return cache_folder() / build_key(device, _cuda_archs() if device == "cuda" else ()) / object_name(device)


def _failure(target: Path) -> Path:
    """The note that compiling failed, so that not every process tries again."""
    return target.with_name("failed.txt")


def _build(device: str, *, force: bool = False) -> Path:
    target = _cached(device)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(target.parent / "lock", timeout=_BUILD_TIMEOUT_SECONDS):
            if force or not target.is_file():  # another process may have been first
                compile_object(target, device, _cuda_archs() if device == "cuda" else ())
            _failure(target).unlink(missing_ok=True)
    except CompilerError as error:
        with contextlib.suppress(OSError):
            _failure(target).write_text(str(error))
        raise
    except filelock.Timeout as error:
        raise BuildError(f"another process has held {error.lock_file} for {_BUILD_TIMEOUT_SECONDS:.0f} s") from error
    except OSError as error:
        raise BuildError(f"cannot write to the cache ({error}); set SIFA_ZOO_CACHE to a folder that can be") from error
    return target


def _has_gpu() -> bool:
    return torch.version.cuda is not None and torch.cuda.is_available()


def _cuda_archs() -> tuple[str, ...]:
    """Compute capabilities to compile for: `$TORCH_CUDA_ARCH_LIST`, those of the visible GPUs, or all."""
    wanted = wanted_archs()
    if wanted or not _has_gpu():
        return wanted or CUDA_ARCHS
    capabilities = {torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())}
    return tuple(f"{major}.{minor}" for major, minor in sorted(capabilities))
