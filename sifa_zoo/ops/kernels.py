"""Calls the compiled kernels: from tensors to the arguments of `csrc/interface.h`, and from error codes to exceptions.

The operators have checked what comes in. Frames are handed over in channels-last memory; others are copied.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
DTYPES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2, torch.float64: 3}
_ARGUMENTS: dict[
    str, list[Any]
] = {  # between the sizes and where to run: the memory of tensors, and in one case a flag
    "attention_forward": [ctypes.c_void_p] * 3,
    "attention_backward": [*[ctypes.c_void_p] * 7, ctypes.c_int],
    "saliency_forward": [ctypes.c_void_p] * 2,
    "saliency_backward": [ctypes.c_void_p] * 3,
    "context_forward": [ctypes.c_void_p] * 4,
}


def _sizes(*names: str) -> list[tuple[str, Any]]:
    return [(name, ctypes.c_int64) for name in names]


def _numbers(*names: str) -> list[tuple[str, Any]]:
    return [(name, ctypes.c_int32) for name in names]


class _Attention(ctypes.Structure):
    _fields_ = [  # ctypes wants it so, and in the order of interface.h
        *_sizes("batch", "channels", "steps", "height", "width", "kernel_size", "dilation"),
        *_sizes("offset_row", "offset_sample"),
        *_numbers("dtype", "offset_dtype", "residual"),
    ]


class _Saliency(ctypes.Structure):
    _fields_ = [*_sizes("groups", "steps", "size"), *_numbers("dtype", "out_dtype")]


class _Context(ctypes.Structure):
    _fields_ = [*_sizes("batch", "locations", "channels"), *_numbers("dtype")]


class _Threads(ctypes.Structure):
    _fields_ = [("parallel_for", ctypes.c_void_p), *_sizes("count")]


class Kernels:
    """The kernels of one device, in a compiled object.

    Args:
        path: The object.
        device: "cpu" or "cuda".

    Raises:
        OSError: If the object does not load or lacks a function, or PyTorch lacks the one that shares out work.
    """

    def __init__(self, path: Path, device: str) -> None:
        self.device = device
        self._library = library = ctypes.CDLL(str(path))
        library.sifa_error.restype = ctypes.c_char_p
        try:
            self._functions = {name: getattr(library, f"sifa_{name}") for name in _ARGUMENTS}
        except AttributeError as error:
            raise OSError(str(error)) from error
        for name, function in self._functions.items():
            function.argtypes = [ctypes.c_void_p, *_ARGUMENTS[name], ctypes.c_void_p]
        _parallel_for()

    @property
    def instruction_set(self) -> str:
        """Which one the CPU kernels use."""
        function = self._library.sifa_instruction_set
        function.restype = ctypes.c_char_p
        name: bytes = function()
        return name.decode()

    def attention(self, x: Tensor, offset: Tensor, *sizes: int) -> Tensor:
        """The operator `sifa::inter_frame_attention`; `sizes` are its other arguments."""
        source, offsets, out = _frames(x), _offsets(offset, x), _Result(torch.empty_like(x))
        problem = _attention(x.shape, x.dtype, offsets.dtype, _row_and_sample(offsets), *sizes)
        self._run("attention_forward", problem, source, offsets, out.memory)
        return out.finish()

    def attention_backward(
        self, grad: Tensor, x: Tensor, offset: Tensor, *sizes: int, ordered: bool
    ) -> tuple[Tensor, Tensor]:
        """The operator `sifa::inter_frame_attention_backward`."""
        source, offsets = _frames(x), _offsets(offset, x)
        grad_x, grad_offset = _Result(torch.empty_like(x)), _Result(torch.empty_like(offset), offsets.dtype)
        n, _, t, h, w = x.shape
        coefficients = torch.empty((n, t, h, w, offset.shape[1]), dtype=_accumulated(x), device=x.device)
        total = grad_x.memory
        if self.device == "cuda" and x.dtype != coefficients.dtype:
            total = torch.empty(x.shape, dtype=coefficients.dtype, device=x.device, memory_format=_FORMATS[5])
        problem = _attention(x.shape, x.dtype, offsets.dtype, _row_and_sample(offsets), *sizes)
        tensors = (_frames(grad), source, offsets, grad_x.memory, grad_offset.memory, total, coefficients)
        self._run("attention_backward", problem, *tensors, flag=ordered)
        return grad_x.finish(), grad_offset.finish()

    def saliency(self, clip: Tensor, dtype: torch.dtype) -> Tensor:
        """The operator `sifa::motion_saliency`."""
        source, out = _frames(clip), _Result(torch.empty_like(clip[:, :, 1:], dtype=dtype))
        self._run("saliency_forward", _saliency(clip.shape, clip.dtype, dtype), source, out.memory)
        return out.finish()

    def saliency_backward(self, grad: Tensor, clip: Tensor) -> Tensor:
        """The operator `sifa::motion_saliency_backward`."""
        source, out = _frames(clip), _Result(torch.empty_like(clip))
        problem = _saliency(clip.shape, clip.dtype, grad.dtype)
        self._run("saliency_backward", problem, _frames(grad), source, out.memory)
        return out.finish()

    def add_context(self, frames: Tensor, context: Tensor, shortcut: Tensor) -> Tensor:
        """The operator `sifa::add_context`."""
        source, other, out = _frames(frames), _frames(shortcut), _Result(torch.empty_like(frames))
        context = context.to(_accumulated(frames)).contiguous()
        batch, channels = context.shape
        problem = _Context(batch, frames.numel() // max(1, batch * channels), channels, DTYPES[frames.dtype])
        self._run("context_forward", problem, source, context, other, out.memory)
        return out.finish()

    def _run(self, name: str, problem: ctypes.Structure, *tensors: Tensor, flag: bool | None = None) -> None:
        """Call a function with the memory of tensors, all on one device and the first of them an input."""
        arguments = [ctypes.addressof(problem), *[tensor.data_ptr() for tensor in tensors]]
        if flag is not None:
            arguments.append(int(flag))
        device = tensors[0].device
        if device.type == "cuda":
            with torch.cuda.device(device):
                error = self._functions[name](*arguments, torch.cuda.current_stream(device).cuda_stream)
        else:
            error = self._functions[name](*arguments, ctypes.addressof(_threads(torch.get_num_threads())))
        if error:
            raise RuntimeError(f"{name} failed on {device}: {self._library.sifa_error(error).decode()}")


class _Result:
    """A tensor for a kernel to fill: its own memory where that is channels-last and of `dtype`, else other memory."""

    def __init__(self, tensor: Tensor, dtype: torch.dtype | None = None) -> None:
        self.tensor = self.memory = tensor
        dtype = dtype or tensor.dtype
        if tensor.dtype != dtype or not tensor.is_contiguous(memory_format=_FORMATS[tensor.ndim]):
            options: Any = {"dtype": dtype, "device": tensor.device, "memory_format": _FORMATS[tensor.ndim]}
            self.memory = torch.empty(tensor.shape, **options)

    def finish(self) -> Tensor:
        """The tensor, once the kernel has been called."""
        return self.tensor if self.memory is self.tensor else self.tensor.copy_(self.memory)


def _frames(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=_FORMATS[x.ndim])


def _accumulated(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _offsets(offset: Tensor, x: Tensor) -> Tensor:
    """Offsets of a dtype that the kernels take, with the rows of a frame in order."""
    if offset.dtype != x.dtype:
        offset = offset.to(_accumulated(x))
    if offset.is_contiguous(memory_format=_FORMATS[5]):
        return offset
    _, channels, t, h, w = offset.shape
    row = max(offset.stride(4), channels)
    wanted = ((channels, 1), (t, h * w * row), (h, w * row), (w, row))
    in_order = all(size == 1 or offset.stride(dim) == stride for dim, (size, stride) in enumerate(wanted, start=1))
    return offset if in_order else _frames(offset)


def _row_and_sample(offset: Tensor) -> tuple[int, int]:
    """Numbers between the offsets of neighbouring pixels, and between those of neighbouring clips."""
    return (offset.stride(4) if offset.shape[4] > 1 else offset.shape[1]), offset.stride(0)


# What the functions are told is the same in every step of a training, and takes as long to write as to call them.


@functools.lru_cache(256)
def _attention(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    offset_dtype: torch.dtype,
    row_and_sample: tuple[int, int],
    kernel_size: int,
    dilation: int,
    residual: bool,
) -> _Attention:
    dtypes = DTYPES[dtype], DTYPES[offset_dtype]
    return _Attention(*shape, kernel_size, dilation, *row_and_sample, *dtypes, residual)


@functools.lru_cache(256)
def _saliency(shape: tuple[int, ...], dtype: torch.dtype, out_dtype: torch.dtype) -> _Saliency:
    n, c, t, h, w = shape
    return _Saliency(n, t, h * w * c, DTYPES[dtype], DTYPES[out_dtype])


@functools.lru_cache(16)
def _threads(count: int) -> _Threads:
    return _Threads(_parallel_for(), count)


@functools.cache
def _parallel_for() -> int:
    """Address of the function by which PyTorch shares out work to its threads, in its stable C interface since 2.10."""
    try:
        function = ctypes.CDLL(torch._C.__file__).torch_parallel_for
    except AttributeError as error:
        raise OSError(f"PyTorch {torch.__version__} has no function torch_parallel_for") from error
    return ctypes.cast(function, ctypes.c_void_p).value or 0
