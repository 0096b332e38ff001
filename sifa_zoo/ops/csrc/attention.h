// What the kernels of `sifa::inter_frame_attention` share: sizes, dtypes, entry points. Nothing of torch is included.
//
// Memory is channels last: x, out and their gradients (N, T, H, W, C) of `dtype`; offset, its gradient and the
// coefficients (N, T, H, W, 2*K*K) of the dtype to accumulate in: f32, or f64 where `dtype` is f64. Channel 2k of an
// offset is the row and 2k + 1 the column of tap k. The arithmetic is written down in ../reference.py.
#pragma once

#include <cstdint>

namespace sifa {

enum class Dtype : int32_t { f16, bf16, f32, f64 };

struct Problem {
  int64_t batch, channels, steps, height, width;
  int64_t kernel_size, dilation;
  Dtype dtype;

  int64_t taps() const { return kernel_size * kernel_size; }
  int64_t pixels() const { return height * width; }
};

}  // namespace sifa

// Launchers of the CUDA kernels. They return a cudaError_t, launch on `stream`, and never synchronise or allocate.
extern "C" {

int sifa_cuda_forward(const void* x, const void* offset, void* out, const sifa::Problem& problem, void* stream);

// `sum` (N, T, H, W, C) and `coefficients` (N, T, H, W, 2*K*K) are scratch of the dtype to accumulate in; `sum` is
// grad_x itself where that has this dtype. `deterministic` asks for a fixed order of summation.
int sifa_cuda_backward(const void* grad, const void* x, const void* offset, void* grad_x, void* grad_offset, void* sum,
                       void* coefficients, const sifa::Problem& problem, bool deterministic, void* stream);

const char* sifa_cuda_error_string(int error);

}  // extern "C"
