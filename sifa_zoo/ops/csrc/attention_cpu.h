// The CPU kernels, one set per instruction set; register.cpp picks one and shares the work out between threads.
#pragma once

#include "attention.h"

namespace sifa {

// One frame of the gradient, or some of its channels: what one thread computes at a time.
struct GradientBlock {
  int64_t sample, step;
  int64_t first_channel, channels;
};

// Locations count the pixels of all pairs of frames: ((n * (T - 1) + t) * H + row) * W + column, T > 1. `scratch` is
// a thread's own, of `scratch_bytes` and aligned to 64.
struct CpuKernels {
  const char* instruction_set;

  int64_t (*scratch_bytes)(const Problem& problem, int64_t block_channels);

  void (*forward)(const Problem& problem, const void* x, const void* offset, void* out, int64_t begin, int64_t end,
                  void* scratch);

  // Weights a_k and b_k of every tap (at frame t + 1, channels 2k and 2k + 1), and the gradient of the offsets.
  void (*coefficients)(const Problem& problem, const void* grad, const void* x, const void* offset, void* grad_offset,
                       void* coefficients, int64_t begin, int64_t end, void* scratch);

  // From these the gradient of x: nothing else writes to the block, so threads need no atomics.
  void (*gradient)(const Problem& problem, const void* grad, const void* x, const void* offset,
                   const void* coefficients, void* grad_x, const GradientBlock& block, void* scratch);
};

namespace baseline {
const CpuKernels& kernels(Dtype dtype);
}
namespace avx2 {
const CpuKernels& kernels(Dtype dtype);
}
namespace avx512 {
const CpuKernels& kernels(Dtype dtype);
}

}  // namespace sifa
