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
_POINTERS = {  # of tensors, by function; before them the sizes, behind them where to run
    "attention_forward": 3,
    "attention_backward": 8,  # the last one is a flag
    "saliency_forward": 2,
    "saliency_backward": 3,
    "context_forward": 4,
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
            self._functions = {name: getattr(library, f"sifa_{name}") for name in _POINTERS}
        except AttributeError as error:
            raise OSError(str(error)) from error
        for name, function in self._functions.items():
            function.argtypes = [ctypes.c_void_p] * (_POINTERS[name] + 2)
        _parallel_for()

    @property
    def instruction_set(self) -> str:
        """Which one the CPU kernels use."""
        function = self._library.sifa_instruction_set
        function.restype = ctypes.c_char_p
        name: bytes = function()
        return name.decode()

    def attention(self, x: Tensor, offset: Tensor, *, kernel_size: int, dilation: int, residual: bool) -> Tensor:
        """The operator `sifa::inter_frame_attention`."""
        source, offsets, out = _frames(x), _offsets(offset, x), _Result(torch.empty_like(x))
        problem = _attention(source, offsets, kernel_size, dilation, residual=residual)
        self._run("attention_forward", problem, source, offsets, out.memory)
        return out.finish()

    def attention_backward(
        self, grad: Tensor, x: Tensor, offset: Tensor, *, kernel_size: int, dilation: int, residual: bool, ordered: bool
    ) -> tuple[Tensor, Tensor]:
        """The operator `sifa::inter_frame_attention_backward`."""
        source, offsets = _frames(x), _offsets(offset, x)
        grad_x, grad_offset = _Result(torch.empty_like(x)), _Result(torch.empty_like(offset), offsets.dtype)
        n, _, t, h, w = x.shape
        coefficients = torch.empty(n, t, h, w, 2 * kernel_size**2, dtype=_accumulated(x), device=x.device)
        total = grad_x.memory
        if self.device == "cuda" and x.dtype != coefficients.dtype:
            total = torch.empty(x.shape, dtype=coefficients.dtype, device=x.device, memory_format=_FORMATS[5])
        problem = _attention(source, offsets, kernel_size, dilation, residual=residual)
        tensors = (_frames(grad), source, offsets, grad_x.memory, grad_offset.memory, total, coefficients)
        self._run("attention_backward", problem, *tensors, flag=ordered)
        return grad_x.finish(), grad_offset.finish()

    def saliency(self, clip: Tensor, dtype: torch.dtype) -> Tensor:
        """The operator `sifa::motion_saliency`."""
        source, out = _frames(clip), _Result(torch.empty_like(clip[:, :, 1:], dtype=dtype))
        self._run("saliency_forward", _saliency(source, dtype), source, out.memory)
        return out.finish()

    def saliency_backward(self, grad: Tensor, clip: Tensor) -> Tensor:
        """The operator `sifa::motion_saliency_backward`."""
        source, out = _frames(clip), _Result(torch.empty_like(clip))
        self._run("saliency_backward", _saliency(source, grad.dtype), _frames(grad), source, out.memory)
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
        function, device = self._functions[name], tensors[0].device
        pointers = [tensor.data_ptr() for tensor in tensors]
        arguments = [ctypes.addressof(problem), *pointers, *(() if flag is None else (int(flag),))]
        if device.type == "cuda":
            with torch.cuda.device(device):
                error = function(*arguments, torch.cuda.current_stream(device).cuda_stream)
        else:
            threads = _Threads(_parallel_for(), torch.get_num_threads())
            error = function(*arguments, ctypes.addressof(threads))
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
    """Offsets of a dtype that the kernels take, whose rows may stand further apart than they are long."""
    offset = offset if offset.dtype == x.dtype else offset.to(_accumulated(x))
    _, channels, t, h, w = offset.shape
    row = offset.stride(4) if w > 1 else channels
    in_order = zip(offset.stride()[1:], (1, h * w * row, w * row, row), (channels, t, h, w), strict=True)
    if row < channels or any(stride != wanted for stride, wanted, size in in_order if size > 1):
        return _frames(offset)
    return offset


def _attention(x: Tensor, offset: Tensor, kernel_size: int, dilation: int, *, residual: bool) -> _Attention:
    n, _, t, h, w = x.shape
    row = offset.stride(4) if w > 1 else offset.shape[1]
    sample = offset.stride(0) if n > 1 else 0
    dtypes = DTYPES[x.dtype], DTYPES[offset.dtype]
    return _Attention(n, x.shape[1], t, h, w, kernel_size, dilation, row, sample, *dtypes, residual)


def _saliency(clip: Tensor, dtype: torch.dtype) -> _Saliency:
    n, c, t, h, w = clip.shape
    return _Saliency(n, t, h * w * c, DTYPES[clip.dtype], DTYPES[dtype])


@functools.cache
def _parallel_for() -> int:
    """Address of the function by which PyTorch shares out work to its threads, in its stable C interface since 2.10."""
    try:
        function = ctypes.CDLL(torch._C.__file__).torch_parallel_for
    except AttributeError as error:
        raise OSError(f"PyTorch {torch.__version__} has no function torch_parallel_for") from error
    return ctypes.cast(function, ctypes.c_void_p).value or 0
