// The CPU kernels, one set per instruction set; entry_cpu.cpp picks one and shares the work out between threads.
#pragma once

#include "interface.h"

namespace sifa {

// One frame of the gradient, or some of its channels: what one thread computes at a time.
struct GradientBlock {
  int64_t sample, step;
  int64_t first_channel, channels;
};

// Inter-frame attention for features of one dtype. Locations count the pixels of all pairs of frames:
// ((n * (T - 1) + t) * H + row) * W + column, T > 1. `scratch` is a thread's own, of `scratch_bytes` and aligned to 64.
struct AttentionKernels {
  int64_t (*scratch_bytes)(const Attention& problem, int64_t block_channels);

  void (*forward)(const Attention& problem, const void* x, const void* offset, void* out, int64_t begin, int64_t end,
                  void* scratch);

  // Weights a_k and b_k of every tap (at frame t + 1, channels 2k and 2k + 1), and the gradient of the offsets.
  void (*coefficients)(const Attention& problem, const void* grad, const void* x, const void* offset, void* grad_offset,
                       void* coefficients, int64_t begin, int64_t end, void* scratch);

  // From these the gradient of x: nothing else writes to the block, so threads need no atomics.
  void (*gradient)(const Attention& problem, const void* grad, const void* x, const void* offset,
                   const void* coefficients, void* grad_x, const GradientBlock& block, void* scratch);
};

// Motion saliency from one dtype to another, for some of the numbers of every frame of a group.
struct SaliencyKernels {
  void (*forward)(const Saliency& problem, const void* x, void* out, int64_t group, int64_t begin, int64_t end);
  void (*backward)(const Saliency& problem, const void* grad, const void* x, void* grad_x, int64_t group, int64_t begin,
                   int64_t end);
};

// relu(x + context + shortcut) at some locations, counted over all clips.
using ContextKernel = void (*)(const Context& problem, const void* x, const void* context, const void* shortcut,
                               void* out, int64_t begin, int64_t end);

struct CpuKernels {
  const char* instruction_set;
  const AttentionKernels& (*attention)(Dtype dtype);
  SaliencyKernels (*saliency)(Dtype dtype, Dtype out_dtype);
  ContextKernel (*context)(Dtype dtype);
};

namespace baseline {
extern const CpuKernels kernels;
}
namespace avx2 {
extern const CpuKernels kernels;
}
namespace avx512 {
extern const CpuKernels kernels;
}

}  // namespace sifa
