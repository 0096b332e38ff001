"""The CUDA kernels, built for a CPU with the stand-in headers of `cuda_on_cpu/`, against plain PyTorch in float64.

What only a GPU can show (races, memory orders, speed) stays for `test_on_cuda.py`.
"""

import re
import subprocess
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from sifa_zoo.ops import compiler, reference
from sifa_zoo.ops.kernels import Kernels

HEADERS = Path(__file__).parent / "cuda_on_cpu"
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
SHAPES = [
    # x, K, dilation, pixels of offset
    ((2, 8, 3, 5, 4), 3, 1, 1.0),
    ((1, 40, 2, 9, 10), 3, 1, 0.5),
    ((1, 24, 3, 12, 17), 3, 1, 6.0),  # most corners out of the tiles' reach
    ((2, 3, 2, 4, 3), 2, 2, 1.0),
    ((1, 7, 4, 1, 1), 5, 1, 1.0),
    ((1, 600, 2, 3, 4), 3, 1, 1.0),  # more channels than the lanes of a location hold
    ((1, 16, 1, 3, 3), 3, 1, 1.0),
    ((0, 8, 3, 5, 4), 3, 1, 1.0),
]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    cxx = compiler.find_compiler()
    if cxx is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("cuda_on_cpu")
    for source in compiler.SOURCES.iterdir():
        launches = re.compile(r"kernel<<<(.*), (\w+), 0, .*?>>>\(")  # the only syntax that is not C++
        (folder / source.name).write_text(launches.sub(r"emulate(kernel, \1, \2, ", source.read_text()))
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-D__CUDA_ARCH__=900", f"-I{HEADERS}", "-x", "c++"]
    command = [cxx, *flags, *map(str, sorted(folder.glob("*.cu"))), "-o", str(folder / "emulated.so")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Kernels(folder / "emulated.so", "cuda")


def draw(*shape, dtype, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def assert_as_good(ours, expected, dtype):
    """In low precision, sums of rounded numbers are what is compared: a few units in the last place."""
    scale = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    assert_close(ours.double(), expected.double(), atol=16 * torch.finfo(dtype).eps * scale, rtol=0)


@pytest.mark.parametrize(("wide", "residual"), [(False, False), (True, True)], ids=["", "wide-residual"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "kernel_size", "dilation", "scale"), SHAPES)
def test_attention(kernels, shape, kernel_size, dilation, scale, dtype, wide, residual):
    n, _, t, h, w = shape
    x, grad = draw(*shape, dtype=dtype), draw(*shape, dtype=dtype, seed=1)
    rows = 24 if kernel_size == 3 else 2 * kernel_size**2  # as a convolution padded for tensor cores gives
    offset_dtype = torch.promote_types(dtype, torch.float32) if wide else dtype
    offset = draw(n, rows, t - 1, h, w, dtype=offset_dtype, scale=scale, seed=2)
    offset = offset.to(memory_format=torch.channels_last_3d)[:, : 2 * kernel_size**2]
    sizes = {"kernel_size": kernel_size, "dilation": dilation, "residual": residual}
    exact = [tensor.double() for tensor in (grad, x, offset)]
    expected = reference.forward(*exact[1:], *sizes.values()), *reference.backward(*exact, *sizes.values())
    ours = kernels.attention(x, offset, *sizes.values())
    for ordered in (False, True):
        gradients = kernels.attention_backward(grad, x, offset, *sizes.values(), ordered=ordered)
        for result, wanted in zip((ours, *gradients), expected, strict=True):
            assert_as_good(result, wanted, dtype)
    assert gradients[1].dtype == offset_dtype


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e30, -1.0, 3.999999])
def test_offsets_at_and_beyond_the_border(kernels, value):
    x, grad = draw(1, 4, 2, 5, 4, dtype=torch.float64), draw(1, 4, 2, 5, 4, dtype=torch.float64, seed=1)
    offset = torch.full((1, 18, 1, 5, 4), value, dtype=torch.float64)
    sizes = {"kernel_size": 3, "dilation": 1, "residual": False}
    assert_close(kernels.attention(x, offset, *sizes.values()), reference.forward(x, offset, *sizes.values()))
    gradients = kernels.attention_backward(grad, x, offset, *sizes.values(), ordered=False)
    assert_close(gradients, reference.backward(grad, x, offset, *sizes.values()))


@pytest.mark.parametrize(
    ("dtype", "out_dtype"),
    [*((dtype, dtype) for dtype in DTYPES), (torch.float32, torch.bfloat16), (torch.float32, torch.float16)],
    ids=str,
)
@pytest.mark.parametrize("shape", [(2, 8, 3, 5, 4), (1, 3, 2, 3, 3), (3, 16, 1, 2, 2), (0, 8, 3, 5, 4)])
def test_motion_saliency(kernels, shape, dtype, out_dtype):
    clip = draw(*shape, dtype=dtype, scale=2.0)
    grad = draw(*shape, dtype=out_dtype, seed=1)[:, :, 1:]
    assert_as_good(kernels.saliency(clip, out_dtype), reference.saliency(clip.double(), torch.float64), out_dtype)
    expected = reference.saliency_backward(grad.double(), clip.double())
    assert_as_good(kernels.saliency_backward(grad, clip), expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("batch", "num_steps", "channels"), [(2, 3, 16), (3, 1, 5), (1, 4, 1), (0, 2, 8)])
def test_add_context(kernels, batch, num_steps, channels, dtype):
    frames, shortcut = (draw(batch * num_steps, channels, 3, 5, dtype=dtype, seed=seed) for seed in (1, 2))
    context = draw(batch, channels, dtype=torch.promote_types(dtype, torch.float32), seed=3)
    expected = reference.add_context(frames.double(), context.double(), shortcut.double())
    assert_as_good(kernels.add_context(frames, context, shortcut), expected, dtype)


def test_sizes_beyond_the_kernels_are_refused(kernels):
    x, offset = torch.zeros(1, 1, 2, 1, 1), torch.zeros(1, 18, 1, 1, 1)
    with pytest.raises(RuntimeError, match="attention_forward failed on cpu: invalid"):
        kernels.attention(x, offset, 3, 2**24, False)
