"""Compiles the native kernels of one device into a shared object.

Its entry points are C functions of memory (`csrc/interface.h`). So it needs no headers of PyTorch or Python, serves
every version of both, and takes seconds. This file imports neither torch nor the package: `setup.py` loads it by its
path, where neither may be installed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).parent / "csrc"
CUDA_ARCHS = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")  # of a wheel; the last one also as PTX, for later GPUs

_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-Wno-psabi")
_NVCC_FLAGS = ("-std=c++17", "-O3", "-Xfatbin=-compress-all", "-Xcompiler=-fPIC,-fvisibility=hidden")
_X86 = {
    "avx2": ("-mavx2", "-mfma", "-mf16c"),
    "avx512": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c"),
}


class BuildError(RuntimeError):
    """The native kernels could not be built."""


class CompilerError(BuildError):
    """A compiler was found, but failed."""


def object_name(device: str) -> str:
    return f"native_{device}.so"


def find_compiler() -> str | None:
    """The C++ compiler: `$CXX`, or g++, clang++ or c++ on the PATH."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    return next(filter(None, map(shutil.which, names)), None)


def find_nvcc() -> str | None:
    """nvcc: in `$CUDA_HOME`, of the package `cuda-toolkit[nvcc,cccl]`, on the PATH, or in /usr/local/cuda."""
    home = os.environ.get("CUDA_HOME")
    packaged = [bin_ for folder in sys.path if folder for bin_ in sorted(Path(folder, "nvidia").glob("cu*/bin"))]
    found = [Path(home, "bin")] if home else [*packaged[::-1], os.environ.get("PATH", ""), "/usr/local/cuda/bin"]
    return shutil.which("nvcc", path=os.pathsep.join(map(str, found)))


def wanted_archs() -> tuple[str, ...]:
    """The compute capabilities in `$TORCH_CUDA_ARCH_LIST`; none where it is not set."""
    return tuple(os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(";", " ").split())


def build_key(device: str, cuda_archs: Sequence[str] = ()) -> str:
    """What an object depends on, as the name of a folder: sources, flags, machine and C library."""
    digest = hashlib.sha256(repr((_FLAGS, _NVCC_FLAGS, _X86)).encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    system = f"{sys.platform}-{platform.machine()}-{''.join(platform.libc_ver())}"
    return "-".join([device, *cuda_archs, system, digest.hexdigest()[:12]])


def compile_object(target: Path, device: str, cuda_archs: Sequence[str] = ()) -> None:
    """Compile the kernels of one device into `target`, which appears whole or not at all.

    Args:
        target: The shared object.
        device: "cpu" or "cuda".
        cuda_archs: Compute capabilities to compile CUDA kernels for, such as "9.0".

    Raises:
        BuildError: If a compiler is missing or fails, or `target` cannot be written.
    """
    if sys.platform == "win32":
        raise BuildError("the native kernels need GCC or Clang, and have no build for Windows")
    compiler, nvcc = find_compiler(), find_nvcc()
    if compiler is None:
        raise BuildError("no C++ compiler on the PATH; install g++ or clang++, or name one in CXX")
    if device == "cuda" and nvcc is None:
        raise BuildError('no nvcc; install a CUDA toolkit (pip install "cuda-toolkit[nvcc,cccl]"), or set CUDA_HOME')
    link = _cuda_runtime(nvcc) if device == "cuda" else []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="build-", dir=target.parent) as folder:
            commands = _cuda_commands(compiler, nvcc, cuda_archs) if device == "cuda" else _cpu_commands(compiler)
            objects = {str(Path(folder, f"{name}.o")): command for name, command in commands.items()}
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(_run, [[*command, "-o", file] for file, command in objects.items()]))
            built = Path(folder, target.name)
            _run([compiler, "-shared", *objects, *link, "-o", str(built)])
            os.replace(built, target)
    except OSError as error:
        raise BuildError(f"cannot write to {target.parent} ({error})") from error


def _cpu_commands(compiler: str) -> dict[str, list[str]]:
    """What compiles each part, by the name of its object file: the kernels once per instruction set."""
    sets = {"baseline": (), **(_X86 if platform.machine() in ("x86_64", "AMD64") else {})}
    kernels = {
        f"{source}-{name}": [compiler, *_FLAGS, *flags, f"-DSIFA_INSTRUCTION_SET={name}", *_source(f"{source}.cpp")]
        for name, flags in sets.items()
        for source in ("attention_cpu", "pointwise_cpu")
    }
    return {**kernels, "entry": [compiler, *_FLAGS, *_source("entry_cpu.cpp")]}


def _cuda_commands(compiler: str, nvcc: str | None, archs: Sequence[str]) -> dict[str, list[str]]:
    flags = _cuda_flags(archs, compiler)
    sources = ("attention_forward", "attention_backward", "pointwise")
    return {source: [str(nvcc), *flags, *_source(f"{source}.cu")] for source in sources}


def _source(name: str) -> list[str]:
    return ["-c", str(SOURCES / name)]


def _cuda_flags(archs: Sequence[str], compiler: str) -> list[str]:
    """nvcc's flags for these compute capabilities, with PTX of the last for later GPUs."""
    numbers = [arch.replace(".", "").removesuffix("+PTX") for arch in archs]
    targets = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in numbers]
    ptx = f"-gencode=arch=compute_{numbers[-1]},code=compute_{numbers[-1]}"
    return [*_NVCC_FLAGS, f"-ccbin={compiler}", *targets, ptx]


def _cuda_runtime(nvcc: str | None) -> list[str]:
    home = Path(str(nvcc)).resolve().parents[1]
    return [f"-L{home / name}" for name in ("lib64", "lib")] + ["-lcudart_static", "-ldl", "-lrt", "-lpthread"]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        first = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "no message")
        raise CompilerError(f"{command[0]} failed: {first}")
