"""Compiles the native kernels into one shared object.

It is built against the stable ABI of libtorch (https://docs.pytorch.org/docs/stable/notes/libtorch_stable_abi.html), so
it serves every PyTorch from 2.10 on, needs no Python headers, and takes seconds. This file imports neither torch nor
the package: `setup.py` loads it by its path, where neither may be installed.
"""

from __future__ import annotations

import hashlib
import importlib.util
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
OBJECT_NAME = "native.so"

# The oldest libtorch to run with, 2.10; the same as in pyproject.toml.
_TARGET = "-DTORCH_TARGET_VERSION=0x020a000000000000"
_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-Wno-psabi", _TARGET)
_X86 = {
    "avx2": ("-mavx2", "-mfma", "-mf16c"),
    "avx512": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c"),
}
CUDA_ARCHS = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")  # of a wheel; the last one also as PTX, for later GPUs


class BuildError(RuntimeError):
    """The native kernels could not be built."""


def find_compiler() -> str | None:
    """The C++ compiler: `$CXX`, or g++, clang++ or c++ on the PATH."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    return next(filter(None, map(shutil.which, names)), None)


def find_nvcc() -> str | None:
    """nvcc: of `$CUDA_HOME`, of the package cuda-toolkit[nvcc], on the PATH, or in /usr/local/cuda."""
    if os.environ.get("CUDA_HOME"):
        return shutil.which("nvcc", path=Path(os.environ["CUDA_HOME"], "bin"))
    packaged = [Path(folder, "nvidia") for folder in sys.path if folder]
    folders = [bin_ for folder in packaged for bin_ in sorted(folder.glob("cu*/bin"), reverse=True)]
    return next(filter(None, (shutil.which("nvcc", path=folder) for folder in folders)), None) or shutil.which(
        "nvcc", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/cuda/bin"])
    )


def key(cuda_archs: Sequence[str] = ()) -> str:
    """What an object depends on, as the name of a folder: sources, flags, machine and C library."""
    digest = hashlib.sha256(repr((_FLAGS, _X86)).encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    kind = "cuda-" + "-".join(cuda_archs) if cuda_archs else "cpu"
    system = f"{sys.platform}-{platform.machine()}-{''.join(platform.libc_ver())}"
    return f"{system}-{kind}-{digest.hexdigest()[:12]}"


def compile_object(target: Path, cuda_archs: Sequence[str] = ()) -> None:
    """Compile the kernels into `target`, which appears whole or not at all.

    Args:
        target: The shared object.
        cuda_archs: Compute capabilities to compile the CUDA kernels for, such as "9.0"; none leaves them out.

    Raises:
        BuildError: If torch or a compiler is missing, a compiler fails, or `target` cannot be written.
    """
    if sys.platform == "win32":
        raise BuildError("the native kernels need GCC or Clang, and have no build for Windows")
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise BuildError("torch is not installed in the environment that builds")
    compiler = find_compiler()
    if compiler is None:
        raise BuildError("no C++ compiler on the PATH; install g++ or clang++, or name one in CXX")
    torch_folder = Path(spec.submodule_search_locations[0])
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="build-", dir=target.parent) as folder:
            built = _compile(Path(folder), compiler, torch_folder, tuple(cuda_archs))
            os.replace(built, target)
    except OSError as error:
        raise BuildError(f"cannot write to {target.parent} ({error})") from error


def _compile(folder: Path, compiler: str, torch_folder: Path, cuda_archs: tuple[str, ...]) -> Path:
    include = (f"-I{torch_folder / 'include'}",)
    x86 = _X86 if platform.machine() in ("x86_64", "AMD64") else {}
    link = [f"-L{torch_folder / 'lib'}", "-ltorch", "-ltorch_cpu"]
    if sys.platform == "linux":
        link.insert(0, "-Wl,--no-as-needed")
    defines: tuple[str, ...] = ()
    commands = []
    for name, flags in {"baseline": (), **x86}.items():
        variant = (*flags, f"-DSIFA_INSTRUCTION_SET={name}", "-c", str(SOURCES / "attention_cpu.cpp"))
        commands.append([compiler, *_FLAGS, *variant, "-o", str(folder / f"cpu_{name}.o")])
    if cuda_archs:
        nvcc = find_nvcc()
        if nvcc is None:
            raise BuildError('no nvcc; install a CUDA toolkit (pip install "cuda-toolkit[nvcc]") or set CUDA_HOME')
        defines = ("-DSIFA_WITH_CUDA",)
        source = str(SOURCES / "attention.cu")
        commands.append([nvcc, *cuda_flags(cuda_archs, compiler), "-c", source, "-o", str(folder / "cuda.o")])
        home = Path(nvcc).resolve().parents[1]
        link += [f"-L{home / name}" for name in ("lib64", "lib")] + ["-lcudart_static", "-ldl", "-lrt", "-lpthread"]
    register = (*_FLAGS, *defines, *include, "-c", str(SOURCES / "register.cpp"))
    commands.append([compiler, *register, "-o", str(folder / "register.o")])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_run, commands))
    target = folder / OBJECT_NAME
    _run([compiler, "-shared", *[command[-1] for command in commands], *link, "-o", str(target)])
    return target


def cuda_flags(archs: Sequence[str], compiler: str) -> list[str]:
    """nvcc's flags for these compute capabilities, with PTX of the last for later GPUs."""
    numbers = [arch.replace(".", "").removesuffix("+PTX") for arch in archs]
    targets = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in numbers]
    ptx = f"-gencode=arch=compute_{numbers[-1]},code=compute_{numbers[-1]}"
    return ["-std=c++17", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden", f"-ccbin={compiler}", *targets, ptx]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        first = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "no message")
        raise BuildError(f"{Path(command[0]).name} failed: {first.strip()}")
