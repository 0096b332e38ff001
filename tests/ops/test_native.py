"""Building and loading the native kernels in each circumstance that an installation meets."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sifa_zoo import ops
from sifa_zoo.ops import compiler as compilers
from sifa_zoo.ops import native
from sifa_zoo.ops.kernels import Kernels

ROOT = Path(__file__).parents[2]
ATTEND = """
import torch, warnings
from sifa_zoo.ops import backends, inter_frame_attention
x, offset = torch.randn(1, 8, 3, 5, 4), torch.randn(1, 18, 3, 5, 4)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    outs = [inter_frame_attention(x, offset) for _ in range(3)]
torch.testing.assert_close(outs[0], inter_frame_attention(x, offset, backend="torch"))
print(backends()["cpu"])
for warning in caught:
    print("WARNING", warning.message)
"""

needs_compiler = pytest.mark.skipif(compilers.find_compiler() is None, reason="no C++ compiler")


@pytest.fixture
def run(tmp_path):
    """Runs a script in a new process with a cache of its own; returns what it printed, line by line."""

    def run(script, *, wait=True, **environment):
        own = {"SIFA_ZOO_CACHE": str(tmp_path / "cache"), "SIFA_ZOO_OPS": "", "OMP_NUM_THREADS": "1"}
        options = {"env": os.environ | own | environment, "cwd": ROOT, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen([sys.executable, "-c", script], **options)
        return finish(process) if wait else process

    return run


def finish(process):
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    return out.splitlines()


def compiler(folder, body):
    """A compiler that notes its calls and then does as `body` says."""
    script = folder / "compiler"
    script.write_text(f'#!/bin/sh\necho called >> "{folder}/calls"\n{body}\n')
    script.chmod(0o755)
    return str(script)


def calls(folder):
    return (folder / "calls").read_text().count("called")


def the_only_warning(lines):
    (warning,) = [line for line in lines if line.startswith("WARNING")]
    assert "run in plain PyTorch, many times slower" in warning
    return warning


@needs_compiler
def test_first_use_compiles_and_the_next_process_loads(run, tmp_path):
    working = compiler(tmp_path, f'exec {compilers.find_compiler()} "$@"')
    assert run(ATTEND, CXX=working) == ["True"]
    compiled = calls(tmp_path)
    assert compiled > 1
    assert run(ATTEND, CXX=working) == ["True"]
    assert calls(tmp_path) == compiled
    assert not list(tmp_path.glob("cache/*/build-*"))


@needs_compiler
def test_two_processes_at_once_compile_once(run, tmp_path):
    working = compiler(tmp_path, f'exec {compilers.find_compiler()} "$@"')
    both = [run(ATTEND, CXX=working, wait=False) for _ in range(2)]
    assert [finish(process) for process in both] == [["True"], ["True"]]
    together = calls(tmp_path)
    run("from sifa_zoo import ops; ops.build('cpu', force=True)", CXX=working)
    assert calls(tmp_path) == 2 * together


def test_without_a_compiler(run, tmp_path):
    lines = run(ATTEND, PATH=str(tmp_path), CXX="")
    assert "no C++ compiler on the PATH; install g++" in the_only_warning(lines)


def test_a_broken_compiler_is_tried_once(run, tmp_path):
    broken = compiler(tmp_path, 'echo "fatal error: no such thing" >&2; exit 1')
    assert "fatal error: no such thing" in the_only_warning(run(ATTEND, CXX=broken))
    tried = calls(tmp_path)
    lines = run(ATTEND, CXX=broken)
    assert "`sifa-zoo build-ops` tries again" in the_only_warning(lines)
    assert "fatal error" in lines[0]  # backends() says it too
    assert calls(tmp_path) == tried
    if good := compilers.find_compiler():
        run("from sifa_zoo import ops; ops.build('cpu')", CXX=good)
        assert run(ATTEND, CXX=broken) == ["True"]


@needs_compiler
def test_a_cache_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").touch()
    lines = run(ATTEND, SIFA_ZOO_CACHE=str(tmp_path / "file" / "cache"))
    assert "set SIFA_ZOO_CACHE to a folder that can be" in the_only_warning(lines)


@needs_compiler
def test_an_object_that_does_not_load(run):
    (target,) = run("from sifa_zoo import ops; print(ops.build('cpu')[0])")
    Path(target).write_bytes(b"not an object")
    assert "`sifa-zoo build-ops --force` compiles it again" in the_only_warning(run(ATTEND))
    run("from sifa_zoo import ops; ops.build('cpu', force=True)")
    assert run(ATTEND) == ["True"]


@pytest.mark.parametrize(("value", "reason"), [("torch", "switched off"), ("nobuild", "not compiled")])
def test_the_switch(run, tmp_path, value, reason):
    lines = run(ATTEND, SIFA_ZOO_OPS=value)
    assert reason in lines[0]
    assert len(lines) == (1 if value == "torch" else 2)  # what was asked for needs no warning
    assert not (tmp_path / "cache").exists()


def test_a_wrong_switch_is_said(run):
    assert "must be 'torch' or 'nobuild'" in the_only_warning(run(ATTEND, SIFA_ZOO_OPS="off"))


def test_nothing_is_compiled_at_import_or_while_tracing(run, tmp_path):
    script = """
import torch, sifa_zoo
from sifa_zoo.ops import backends
model = sifa_zoo.create_model("sifa_net_nano", img_size=32, num_frames=8).eval()
torch.export.export(model, (torch.zeros(1, 3, 8, 32, 32),))
print(backends()["cpu"])
"""
    (reason,) = run(script)
    assert reason.startswith("not compiled yet: the first use on cpu compiles it")
    assert not (tmp_path / "cache").exists()


def test_a_backend_that_cannot_run_says_why(run):
    script = """
import torch
from sifa_zoo.ops import inter_frame_attention
try:
    inter_frame_attention(torch.zeros(1, 1, 2, 1, 1), torch.zeros(1, 18, 2, 1, 1), backend="cpu")
except RuntimeError as error:
    print(error)
"""
    assert run(script, SIFA_ZOO_OPS="torch") == ["backend = 'cpu' cannot run: switched off by SIFA_ZOO_OPS=torch"]


def test_build_names_the_devices():
    with pytest.raises(ValueError, match="device must be one of"):
        ops.build("tpu")


def test_backends_and_report_agree():
    state = ops.backends()
    assert state["torch"] is True
    assert set(state) == {"cuda", "cpu", "torch"}
    report = native.report()
    for name, value in state.items():
        assert report[f"backend {name}"] == ("runs" if value is True else value)
    if not torch.cuda.is_available():
        assert state["cuda"] == "no GPU is visible to PyTorch"


def assert_needs_no_pytorch(target):
    """So that an object serves every PyTorch, and no exception has to find its way between two compilers' libraries."""
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("compiled, and no nm to look into the object")
    listed = subprocess.run(
        [nm, "-D", "-C", "--undefined-only", str(target)], capture_output=True, text=True, check=True
    )
    assert not re.findall(r".*(?:torch|c10|aten|at::|Py_|__cxa_throw).*", listed.stdout)
    assert "aligned_alloc" in listed.stdout or "pthread" in listed.stdout  # it did list something
    assert not any("torch" in line for path in compilers.SOURCES.iterdir() for line in includes(path))


def includes(path):
    return [line for line in path.read_text().splitlines() if line.startswith("#include")]


@pytest.mark.parametrize("compiler_name", ["g++", "clang++"])
def test_the_cpu_kernels_with_either_compiler(run, tmp_path, compiler_name):
    if shutil.which(compiler_name) is None:
        pytest.skip(f"no {compiler_name}")
    assert run(ATTEND, CXX=compiler_name) == ["True"]
    (target,) = tmp_path.glob("cache/*/native_cpu.so")
    assert_needs_no_pytorch(target)
    script = """
import torch
from sifa_zoo.ops import inter_frame_attention
try:
    torch.ops.sifa.inter_frame_attention(torch.zeros(1, 1, 2, 1, 1), torch.zeros(1, 9, 1, 1, 1), 3, 1, False)
except ValueError as error:
    print(error)
"""
    assert run(script, CXX=compiler_name)[0].startswith("offset must be")


def test_the_cuda_kernels_compile_and_link(tmp_path):
    """For the oldest and for a recent architecture; `test_cuda_on_cpu.py` has the arithmetic, a GPU the rest."""
    if compilers.find_compiler() is None or compilers.find_nvcc() is None:
        pytest.skip('no nvcc: pip install "cuda-toolkit[nvcc,cccl]", or a CUDA toolkit in CUDA_HOME')
    target = tmp_path / compilers.object_name("cuda")
    compilers.compile_object(target, "cuda", ("7.5", "9.0"))
    assert_needs_no_pytorch(target)
    Kernels(target, "cuda")
