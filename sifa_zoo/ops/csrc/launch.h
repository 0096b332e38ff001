// The host's side of the CUDA kernels: what they can take, and how they are launched.
#pragma once

#include <climits>
#include <type_traits>

#include "attention_cuda.h"
#include "interface.h"

namespace sifa {

constexpr int kLocationThreads = 128;  // smaller blocks where many registers are in use, to fill a GPU with few pixels

// Every launch has blocks_per_frame blocks for each frame of the batch, all along x.
struct Launch {
  const Attention& problem;
  cudaStream_t stream;

  Shape shape() const {
    const auto& p = problem;
    return {int(p.channels),    int(p.steps),    int(p.height), int(p.width),
            int(p.kernel_size), int(p.dilation), p.offset_row,  p.offset_sample};
  }

  template <typename... Parameters, typename... Arguments>
  cudaError_t operator()(void (*kernel)(Parameters...), dim3 block, int64_t blocks_per_frame,
                         Arguments... arguments) const {
    const int64_t frames = problem.batch * problem.steps;
    if (blocks_per_frame > INT_MAX / frames) return cudaErrorInvalidConfiguration;
    kernel<<<dim3(unsigned(frames * blocks_per_frame)), block, 0, stream>>>(arguments..., shape(),
                                                                            int(blocks_per_frame));
    return cudaGetLastError();
  }
};

inline cudaStream_t stream_of(const void* where) { return static_cast<cudaStream_t>(const_cast<void*>(where)); }

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline int power_of_two(int64_t at_least, int most) {
  int power = 1;
  while (power < at_least && power < most) power *= 2;
  return power;
}

inline bool is_empty(const Attention& p) { return p.batch * p.channels * p.steps * p.pixels() == 0; }

// f32 counts rows and columns exactly up to 2^24, and a frame's taps and a clip's frames must fit in 32 bits.
inline bool is_supported(const Attention& p) {
  const int64_t line = int64_t(1) << 24;
  if (p.height > line || p.width > line || p.dilation < 1 || p.dilation > line) return false;
  if (p.kernel_size < 1 || p.kernel_size > 1024) return false;
  if (p.channels > INT_MAX / 64 || p.steps > INT_MAX || p.batch > INT_MAX / p.steps) return false;
  return p.dilation * p.kernel_size < line && p.pixels() < INT_MAX / p.taps() / 2;
}

template <typename... Pointers>
bool are_aligned(Pointers... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

// Calls `run` with an element of this dtype.
template <typename Run>
cudaError_t with_element(Dtype dtype, const Run& run) {
  switch (dtype) {
    case Dtype::f16:
      return run(__half());
    case Dtype::bf16:
      return run(__nv_bfloat16());
    case Dtype::f32:
      return run(float());
    case Dtype::f64:
      return run(double());
  }
  return cudaErrorInvalidValue;
}

// Calls `run` with an element of this dtype and how many are read at once: those in 16 bytes, if `aligned`, or 1.
template <typename Run>
cudaError_t with_vector(Dtype dtype, int64_t length, bool aligned, const Run& run) {
  return with_element(dtype, [&](auto element) {
    constexpr int width = 16 / sizeof(element);
    if (aligned && length % width == 0) return run(element, std::integral_constant<int, width>());
    return run(element, std::integral_constant<int, 1>());
  });
}

// Calls `run` with an element of the offsets, which are of the features' dtype T or of the one to accumulate in.
template <typename T, typename Run>
cudaError_t with_offset(const Attention& problem, const Run& run) {
  return problem.offset_dtype == problem.dtype ? run(T()) : run(Accumulated<T>());
}

// Two vectors per lane: each lane repeats the arithmetic of a tap's position, so few lanes are good, to a point.
inline dim3 lanes_by_locations(const Attention& problem, int vector_width) {
  const int lanes = power_of_two(divide_up(problem.channels, 2 * vector_width), 32);
  return dim3(lanes, kLocationThreads / lanes);
}

}  // namespace sifa
