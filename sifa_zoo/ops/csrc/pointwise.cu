// CUDA: what surrounds inter-frame attention, each in a single pass: motion saliency, and the sum at the end of a
// block.
#include "launch.h"

namespace {

using namespace sifa;

constexpr int kPointwiseThreads = 256;

template <typename A>
__device__ A sigmoid(A x) {
  return 1 / (1 + exp(-x));
}

// A thread owns V numbers of a frame and walks through time, so that every number is read once.
template <int V, typename X, typename Y, typename A = Accumulated<X>>
__global__ void __launch_bounds__(kPointwiseThreads)
    saliency_forward(const X* x, Y* out, const int64_t groups, const int64_t steps, const int64_t size) {
  const int64_t vectors = size / V, index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= groups * vectors) return;
  const int64_t group = index / vectors, first = (index - group * vectors) * V;
  const X* frames = x + group * steps * size + first;
  Y* results = out + group * (steps - 1) * size + first;
  A before[V], now[V], result[V];
  load<V>(frames, before);
  for (int64_t t = 1; t < steps; ++t) {
    load<V>(frames + t * size, now);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      result[v] = now[v] + now[v] * sigmoid(now[v] - before[v]);
      before[v] = now[v];
    }
    store<V>(results + (t - 1) * size, result);
  }
}

template <int V, typename X, typename Y, typename A = Accumulated<X>>
__global__ void __launch_bounds__(kPointwiseThreads)
    saliency_backward(const Y* grad, const X* x, X* grad_x, const int64_t groups, const int64_t steps,
                      const int64_t size) {
  const int64_t vectors = size / V, index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= groups * vectors) return;
  const int64_t group = index / vectors, first = (index - group * vectors) * V;
  const X* frames = x + group * steps * size + first;
  const Y* upstream = grad + group * (steps - 1) * size + first;
  X* results = grad_x + group * steps * size + first;
  A before[V], now[V], g[V], own[V] = {}, result[V];  // `own` is the gradient so far of the frame before
  load<V>(frames, before);
  for (int64_t t = 1; t < steps; ++t) {
    load<V>(frames + t * size, now);
    load<V>(upstream + (t - 1) * size, g);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const A s = sigmoid(now[v] - before[v]), slope = g[v] * now[v] * s * (1 - s);
      result[v] = own[v] - slope;
      own[v] = g[v] + g[v] * s + slope;
      before[v] = now[v];
    }
    store<V>(results + (t - 1) * size, result);
  }
  store<V>(results + (steps - 1) * size, own);
}

template <int V, typename T, typename A = Accumulated<T>>
__global__ void __launch_bounds__(kPointwiseThreads)
    context_forward(const T* x, const A* context, const T* shortcut, T* out, const int64_t rows,
                    const int64_t locations, const int64_t channels) {
  const int64_t vectors = channels / V, index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= rows * vectors) return;
  const int64_t row = index / vectors, c = (index - row * vectors) * V;
  const A* of_clip = context + row / locations * channels + c;
  A a[V], b[V];
  load<V>(x + index * V, a);
  load<V>(shortcut + index * V, b);
#pragma unroll
  for (int v = 0; v < V; ++v) {
    a[v] = a[v] + of_clip[v] + b[v];
    a[v] = a[v] < 0 ? A(0) : a[v];  // NaN stays
  }
  store<V>(out + index * V, a);
}

// One thread for each of `vectors`.
template <typename... Parameters, typename... Arguments>
cudaError_t launch_pointwise(void (*kernel)(Parameters...), int64_t vectors, const void* where,
                             Arguments... arguments) {
  const int64_t blocks = divide_up(vectors, kPointwiseThreads);
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT_MAX) return cudaErrorInvalidConfiguration;
  kernel<<<unsigned(blocks), kPointwiseThreads, 0, stream_of(where)>>>(arguments...);
  return cudaGetLastError();
}

// Calls `run` with elements of the features and of the saliency, and how many are read at once: 16 bytes of features.
template <typename Run>
cudaError_t with_saliency(const Saliency& p, bool aligned, const Run& run) {
  return with_vector(p.dtype, p.size, aligned, [&](auto element, auto width) {
    if constexpr (std::is_same_v<decltype(element), float>) {
      if (p.out_dtype == Dtype::f16) return run(element, __half(), width);
      if (p.out_dtype == Dtype::bf16) return run(element, __nv_bfloat16(), width);
    }
    return run(element, element, width);
  });
}

}  // namespace

int sifa_saliency_forward(const Saliency* problem, const void* x, void* out, const void* where) {
  const Saliency& p = *problem;
  return with_saliency(p, are_aligned(x, out), [&](auto feature, auto result, auto width) {
    using X = decltype(feature);
    using Y = decltype(result);
    constexpr int V = decltype(width)::value;
    return launch_pointwise(saliency_forward<V, X, Y>, p.groups * (p.size / V), where, static_cast<const X*>(x),
                            static_cast<Y*>(out), p.groups, p.steps, p.size);
  });
}

int sifa_saliency_backward(const Saliency* problem, const void* grad, const void* x, void* grad_x, const void* where) {
  const Saliency& p = *problem;
  return with_saliency(p, are_aligned(grad, x, grad_x), [&](auto feature, auto upstream, auto width) {
    using X = decltype(feature);
    using Y = decltype(upstream);
    constexpr int V = decltype(width)::value;
    return launch_pointwise(saliency_backward<V, X, Y>, p.groups * (p.size / V), where, static_cast<const Y*>(grad),
                            static_cast<const X*>(x), static_cast<X*>(grad_x), p.groups, p.steps, p.size);
  });
}

int sifa_context_forward(const Context* problem, const void* x, const void* context, const void* shortcut, void* out,
                         const void* where) {
  const Context& p = *problem;
  const int64_t rows = p.batch * p.locations;
  return with_vector(p.dtype, p.channels, are_aligned(x, shortcut, out), [&](auto element, auto width) {
    using T = decltype(element);
    constexpr int V = decltype(width)::value;
    return launch_pointwise(context_forward<V, T>, rows * (p.channels / V), where, static_cast<const T*>(x),
                            static_cast<const Accumulated<T>*>(context), static_cast<const T*>(shortcut),
                            static_cast<T*>(out), rows, p.locations, p.channels);
  });
}
