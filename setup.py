"""Copies the weights manifest into the package, and adds the native CPU kernels where a compiler is at hand.

Everything else is in pyproject.toml.

The kernels need neither PyTorch nor Python to compile, so an isolated build makes them, too, and the wheel fits every
version of both. Without a compiler it is pure Python, and the kernels are compiled at first use, as in an editable
installation. With SIFA_ZOO_CUDA=1 the wheel also gets the CUDA kernels, for TORCH_CUDA_ARCH_LIST or all architectures.
"""

import importlib.util
import os
import shutil
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

OPS = Path("sifa_zoo", "ops")
spec = importlib.util.spec_from_file_location("compiler", Path(__file__).parent / OPS / "compiler.py")
compiler = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compiler)


class BuildModules(build_py):
    """The manifest stands at the top of the repository, where people look for it, and inside an installed package."""

    def run(self):
        super().run()
        if not self.editable_mode:
            shutil.copy("weights_manifest.json", Path(self.build_lib, "sifa_zoo"))


class BuildNative(build_ext):
    """Compiles the shared objects beside the modules; without them the package is as good, and builds at first use."""

    def run(self):
        if self.editable_mode:  # beside sources that change, they would soon be of others
            return
        folder = Path(self.build_lib)
        archs = compiler.wanted_archs() or compiler.CUDA_ARCHS
        devices = {"cpu": ()} | ({"cuda": archs} if os.environ.get("SIFA_ZOO_CUDA") == "1" else {})
        for device, cuda_archs in devices.items():
            try:
                compiler.compile_object(folder / OPS / compiler.object_name(device), device, cuda_archs)
            except compiler.BuildError as error:
                if device == "cuda":  # asked for by name
                    raise
                print(f"the native {device} kernels are left out: {error}")


class Wheel(bdist_wheel):
    """Objects of C functions fit every Python."""

    def get_tag(self):
        python, abi, platform = super().get_tag()
        return (python, abi, platform) if self.root_is_pure else ("py3", "none", platform)


def native_extensions():
    wanted = (
        compiler.find_compiler() is not None or os.environ.get("SIFA_ZOO_CUDA") == "1"
    )  # an error then, not a wheel without them
    return [Extension("sifa_zoo.ops.native_kernels", [])] if wanted else []


setup(
    ext_modules=native_extensions(), cmdclass={"build_py": BuildModules, "build_ext": BuildNative, "bdist_wheel": Wheel}
)
