// The host's side of the CUDA kernels: what they can take, and how they are launched.
#pragma once

#include <climits>
#include <type_traits>

#include "attention.h"
#include "attention_cuda.h"

namespace sifa {

constexpr int kLocationThreads = 128;  // smaller blocks where many registers are in use, to fill a GPU with few pixels

// Every launch has blocks_per_frame blocks for each frame of the batch, all along x.
struct Launch {
  const Problem& problem;
  cudaStream_t stream;

  Shape shape() const {
    const auto& p = problem;
    return {int(p.channels), int(p.steps), int(p.height), int(p.width), int(p.kernel_size), int(p.dilation)};
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

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline int power_of_two(int64_t at_least, int most) {
  int power = 1;
  while (power < at_least && power < most) power *= 2;
  return power;
}

inline bool is_empty(const Problem& p) { return p.batch * p.channels * p.steps * p.pixels() == 0; }

// f32 counts rows and columns exactly up to 2^24, and a frame's taps and a clip's frames must fit in 32 bits.
inline bool is_supported(const Problem& p) {
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

// Calls `run` with an element of the dtype and the number of them in 16 bytes, or 1 where these cannot be read at once.
template <typename Run>
cudaError_t dispatch(const Problem& problem, bool aligned, const Run& run) {
  const auto with_vectors = [&](auto element) {
    constexpr int width = 16 / sizeof(element);
    if (aligned && problem.channels % width == 0) return run(element, std::integral_constant<int, width>());
    return run(element, std::integral_constant<int, 1>());
  };
  switch (problem.dtype) {
    case Dtype::f16:
      return with_vectors(__half());
    case Dtype::bf16:
      return with_vectors(__nv_bfloat16());
    case Dtype::f32:
      return with_vectors(float());
    case Dtype::f64:
      return with_vectors(double());
  }
  return cudaErrorInvalidValue;
}

// Two vectors per lane: each lane repeats the arithmetic of a tap's position, so few lanes are good, to a point.
inline dim3 lanes_by_locations(const Problem& problem, int vector_width) {
  const int lanes = power_of_two(divide_up(problem.channels, 2 * vector_width), 32);
  return dim3(lanes, kLocationThreads / lanes);
}

}  // namespace sifa
