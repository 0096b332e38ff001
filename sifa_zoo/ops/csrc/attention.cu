// CUDA kernels of `sifa::inter_frame_attention`. ../reference.py has the arithmetic, attention.h the layout of memory.
//
// Forward: one group of lanes per location, every lane with its share of the channels.
// Backward, in three launches and none of them with an atomic where the taps stay near their location:
//   1. query_gradient  per location: a_k, b_k, the gradient of the offsets, and dq, the whole of it, into `sum`
//   2. scatter         adds to `sum` what goes to corners further than `kReach` from their location
//   3. gather          per 8x8 pixels: adds what all locations within reach send there, and casts the sum
#include <algorithm>
#include <climits>

#include "attention.h"
#include "attention_cuda.h"

namespace {

using namespace sifa;

constexpr int kThreads = 256;          // of a gather
constexpr int kLocationThreads = 128;  // smaller blocks where many registers are in use, to fill a GPU with few pixels
constexpr int kTile = 8;               // pixels along each side of what a block gathers
constexpr int kReach = 2;              // of a gather: all taps of a 3x3 kernel, if no offset exceeds one pixel
constexpr int kSpan = 2 * kReach + 1;
constexpr int kWindow = kTile + 2 * kReach;  // locations along each side that reach a tile

template <typename T, int V, int R, typename A = Accumulated<T>>
__global__ void __launch_bounds__(kLocationThreads)
    forward(const T* x, const A* offset, T* out, const Shape shape, const int blocks_per_frame) {
  const Place place = find_place(shape, blocks_per_frame);
  const bool last = place.step == shape.steps - 1;
  const int64_t location = place.frame * shape.pixels() + place.pixel;
  const T* query = x + location * shape.channels;
  const T* value = x + (place.frame + 1) * shape.pixels() * shape.channels;
  const A* offsets = offset + (location + shape.pixels()) * 2 * shape.taps();
  const A scale = A(1) / shape.channels;
  for (int chunk = 0; chunk < shape.channels; chunk += Channels<V, R>::span()) {
    const Channels<V, R> channels(chunk, shape.channels);
    A q[R * V], attended[R * V] = {};
    channels.load_row(query, q);
    for (int i = 0; i < (last ? 0 : shape.kernel_size); ++i) {
      for (int j = 0; j < shape.kernel_size; ++j) {
        Tap<A> tap;
        A sample[R * V] = {}, a[1] = {};
        if (find_tap(place.row, place.column, i, j, offsets + 2 * (i * shape.kernel_size + j), shape, tap)) {
          sample_tap(value, tap, shape, channels, sample);
#pragma unroll
          for (int e = 0; e < R * V; ++e) a[0] += q[e] * sample[e];
          if (channels.span() < shape.channels) a[0] += dot_outside(query, value, tap, shape, channels);
        }
        sum_over_lanes(a);
        a[0] *= scale;
#pragma unroll
        for (int e = 0; e < R * V; ++e) attended[e] += a[0] * sample[e];
      }
    }
    if (place.exists) channels.store_row(out + location * shape.channels, attended);
  }
}

// The arrays that the launches of the backward pass read.
template <typename T, typename A>
struct Gradients {
  const T* grad;
  const T* x;
  const A* offset;
  const A* coefficients;
};

// Writes dq, the coefficients (at the query's location) and the gradient of the offsets (one frame on).
template <typename T, int V, int R, typename A = Accumulated<T>>
__global__ void __launch_bounds__(kLocationThreads, 3)  // four blocks would spill registers in f16 and bf16
    query_gradient(const Gradients<T, A> from, A* grad_offset, A* sum, A* coefficients, const Shape shape,
                   const int blocks_per_frame) {
  const Place place = find_place(shape, blocks_per_frame);
  const bool last = place.step == shape.steps - 1;
  const int64_t location = place.frame * shape.pixels() + place.pixel, own = location * 2 * shape.taps();
  const T* query = from.x + location * shape.channels;
  const T* upstream = from.grad + location * shape.channels;
  const T* value = from.x + (place.frame + 1) * shape.pixels() * shape.channels;
  const int64_t next = own + static_cast<int64_t>(shape.pixels()) * 2 * shape.taps();
  const A scale = A(1) / shape.channels;
  for (int e = threadIdx.x; place.step == 0 && place.exists && e < 2 * shape.taps(); e += blockDim.x) {
    grad_offset[own + e] = 0;
  }
  for (int chunk = 0; chunk < shape.channels; chunk += Channels<V, R>::span()) {
    const Channels<V, R> channels(chunk, shape.channels);
    A q[R * V], g[R * V], dq[R * V] = {};
    channels.load_row(query, q);
    channels.load_row(upstream, g);
    for (int i = 0; i < (last ? 0 : shape.kernel_size); ++i) {
      for (int j = 0; j < shape.kernel_size; ++j) {
        const int k = 2 * (i * shape.kernel_size + j);
        Tap<A> tap;
        A sample[R * V] = {};
        Dots<A> dots = {};
        const bool counts = find_tap(place.row, place.column, i, j, from.offset + next + k, shape, tap);
        if (counts) {
          sample_and_dot(value, tap, shape, channels, q, g, sample, dots);
          if (channels.span() < shape.channels) {
            add_dots_outside(query, upstream, value, tap, shape, channels, dots);
          }
        }
        sum_over_lanes(dots.of);
        TapGradient<A> gradient;
        if (counts) gradient.set(tap, dots, scale);
#pragma unroll
        for (int e = 0; e < R * V; ++e) dq[e] += gradient.b * sample[e];
        if (threadIdx.x == 0 && place.exists && chunk == 0) {
          coefficients[own + k] = gradient.a;
          coefficients[own + k + 1] = gradient.b;
          grad_offset[next + k] = gradient.row;
          grad_offset[next + k + 1] = gradient.column;
        }
      }
    }
    if (place.exists) channels.store_row(sum + location * shape.channels, dq);
  }
}

// ds_k goes by `gather` to pixels of this neighbourhood, by `scatter` to all others: every corner by exactly one.
__device__ bool within_reach(int rows, int columns) { return abs(rows) <= kReach && abs(columns) <= kReach; }

// Bit c of the result is set where corner c of the tap has a weight and is out of reach.
template <typename A>
__device__ int find_far_corners(int64_t frame, int pixel, int i, int j, const A* offset, const Shape& shape,
                                Tap<A>& tap) {
  const int row = pixel / shape.width, column = pixel % shape.width, k = i * shape.kernel_size + j;
  const A* offsets = offset + (((frame + 1) * shape.pixels() + pixel) * shape.taps() + k) * 2;
  if (!find_tap(row, column, i, j, offsets, shape, tap)) return 0;
  int far = 0;
#pragma unroll
  for (int corner = 0; corner < 4; ++corner) {
    const bool near = within_reach(tap.rows.at[corner / 2] - row, tap.columns.at[corner % 2] - column);
    if (!near && tap.weight(corner) != 0) far |= 1 << corner;
  }
  return far;
}

// Adds ds_k of V channels from `c` on at the far corners of a tap.
template <int V, bool ATOMIC, typename T, typename A>
__device__ void add_far(const Gradients<T, A>& from, A* sum, int64_t frame, int pixel, int k, int c, int far,
                        const Tap<A>& tap, const Shape& shape) {
  const int64_t location = frame * shape.pixels() + pixel;
  const A* coefficients = from.coefficients + (location * shape.taps() + k) * 2;
  A g[V], q[V], part[V];
  load<V>(from.grad + location * shape.channels + c, g);
  load<V>(from.x + location * shape.channels + c, q);
#pragma unroll
  for (int corner = 0; corner < 4; ++corner) {
    if (!(far >> corner & 1)) continue;
    A* to = sum + ((frame + 1) * shape.pixels() + tap.pixel(corner, shape.width)) * shape.channels + c;
#pragma unroll
    for (int v = 0; v < V; ++v) part[v] = tap.weight(corner) * (coefficients[0] * g[v] + coefficients[1] * q[v]);
    if constexpr (ATOMIC) {
      add_atomically<V>(to, part);
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v) to[v] += part[v];
    }
  }
}

// A warp looks at the same tap of 32 locations, then adds the far ones in turn, its lanes along the channels.
template <typename T, int V, typename A = Accumulated<T>>
__global__ void __launch_bounds__(kLocationThreads)
    scatter(const Gradients<T, A> from, A* sum, const Shape shape, const int blocks_per_frame) {
  const int frame = blockIdx.x / blocks_per_frame;
  if (frame % shape.steps == shape.steps - 1) return;
  const int own = (blockIdx.x - frame * blocks_per_frame) * blockDim.x + threadIdx.x;
  for (int i = 0; i < shape.kernel_size; ++i) {
    for (int j = 0; j < shape.kernel_size; ++j) {
      Tap<A> tap;
      const int found = own < shape.pixels() ? find_far_corners(frame, own, i, j, from.offset, shape, tap) : 0;
      for (unsigned waiting = __ballot_sync(kWarp, found != 0); waiting != 0; waiting &= waiting - 1) {
        const int pixel = own - threadIdx.x % 32 + __ffs(waiting) - 1, k = i * shape.kernel_size + j;
        const int far = find_far_corners(frame, pixel, i, j, from.offset, shape, tap);
        for (int c = threadIdx.x % 32 * V; c < shape.channels; c += 32 * V) {
          add_far<V, true>(from, sum, frame, pixel, k, c, far, tap, shape);
        }
      }
    }
  }
}

// The same in a fixed order: a thread owns V channels of a pair of frames and walks all its taps.
template <typename T, int V, typename A = Accumulated<T>>
__global__ void __launch_bounds__(kLocationThreads)
    scatter_in_order(const Gradients<T, A> from, A* sum, const Shape shape, const int blocks_per_frame) {
  const int frame = blockIdx.x / blocks_per_frame;
  const int c = ((blockIdx.x - frame * blocks_per_frame) * blockDim.x + threadIdx.x) * V;
  if (frame % shape.steps == shape.steps - 1 || c >= shape.channels) return;
  for (int pixel = 0; pixel < shape.pixels(); ++pixel) {
    for (int i = 0; i < shape.kernel_size; ++i) {
      for (int j = 0; j < shape.kernel_size; ++j) {
        Tap<A> tap;
        const int far = find_far_corners(frame, pixel, i, j, from.offset, shape, tap);
        if (far == 0) continue;
        add_far<V, false>(from, sum, frame, pixel, i * shape.kernel_size + j, c, far, tap, shape);
      }
    }
  }
}

// What location p - d sends to pixel p, folded over its taps: dp += a * g + b * q.
template <typename A>
struct alignas(2 * sizeof(A)) Folded {
  A a, b;
};

// Folded coefficients of a tile, by column of the pixel, distance to the location's column, row of the location in the
// window, and distance to the pixel's row. One entry more per column keeps neighbours in different banks.
constexpr int kFoldedColumn = kSpan * kWindow * kSpan + 1;

__device__ int folded_at(int pixel_column, int column_distance, int window_row) {
  return pixel_column * kFoldedColumn + (column_distance * kWindow + window_row) * kSpan;
}

// Fills `folded` for the tile at (top, left). A location is one thread's, so nothing is added twice at once.
template <typename T, typename A>
__device__ void fold(const Gradients<T, A>& from, int64_t frame, int top, int left, const Shape& shape,
                     Folded<A>* folded) {
  const int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
  for (int e = thread; e < kTile * kFoldedColumn; e += threads) folded[e] = {A(0), A(0)};
  __syncthreads();
  for (int e = thread; e < kWindow * kWindow; e += threads) {
    const int window_row = e / kWindow, window_column = e % kWindow;
    const int row = top - kReach + window_row, column = left - kReach + window_column;
    if (row < 0 || row >= shape.height || column < 0 || column >= shape.width) continue;
    const int64_t location = frame * shape.pixels() + row * shape.width + column;
    const A* offsets = from.offset + (location + shape.pixels()) * 2 * shape.taps();
    const A* coefficients = from.coefficients + location * 2 * shape.taps();
    for (int i = 0; i < shape.kernel_size; ++i) {
      for (int j = 0; j < shape.kernel_size; ++j) {
        const int k = 2 * (i * shape.kernel_size + j);
        Tap<A> tap;
        if (!find_tap(row, column, i, j, offsets + k, shape, tap)) continue;
        const A a = coefficients[k], b = coefficients[k + 1];
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          const int y = tap.rows.at[corner / 2], x = tap.columns.at[corner % 2];
          const A weight = tap.weight(corner);
          const bool in_tile = y >= top && y < top + kTile && x >= left && x < left + kTile;
          if (!in_tile || !within_reach(y - row, x - column) || weight == 0) continue;
          Folded<A>& to = folded[folded_at(x - left, column - x + kReach, window_row) + y - row + kReach];
          to.a += weight * a;
          to.b += weight * b;
        }
      }
    }
  }
  __syncthreads();
}

// A thread owns V channels (threadIdx.x) of one column of the tile (threadIdx.y). It walks the locations that reach the
// column and hands each to the rows around it, so that a location is read once for all of them.
template <typename T, int V, typename A = Accumulated<T>>
__global__ void __launch_bounds__(kThreads)
    gather(const Gradients<T, A> from, const A* sum, T* grad_x, const Shape shape, const int blocks_per_frame) {
  __shared__ Folded<A> folded[kTile * kFoldedColumn];
  const int frame = blockIdx.x / blocks_per_frame;
  const int tiles_across = (shape.width + kTile - 1) / kTile;
  const int tiles = tiles_across * ((shape.height + kTile - 1) / kTile);
  const int block = blockIdx.x - frame * blocks_per_frame;
  const int tile = block % tiles;
  const int64_t c = (static_cast<int64_t>(block / tiles) * blockDim.x + threadIdx.x) * V;
  const int top = tile / tiles_across * kTile, left = tile % tiles_across * kTile;
  const int64_t query_frame = static_cast<int64_t>(frame) - 1;
  const bool first = frame % shape.steps == 0;  // nothing looks into the first frame of a clip
  if (!first) fold(from, query_frame, top, left, shape, folded);
  const int column = left + threadIdx.y;
  if (c >= shape.channels || column >= shape.width) return;
  A total[kTile][V] = {};
  for (int distance = 0; distance < (first ? 0 : kSpan); ++distance) {
    const int64_t start = query_frame * shape.pixels() + (top - kReach) * shape.width + column + distance - kReach;
#pragma unroll
    for (int window_row = 0; window_row < kWindow; ++window_row) {
      const Folded<A>* own = folded + folded_at(threadIdx.y, distance, window_row);
      // The row of `total` that entry s of a span belongs to; entries of other tiles are left out.
      const auto to = [&](int s) { return window_row + s - 2 * kReach; };
      bool any = false;
#pragma unroll
      for (int s = 0; s < kSpan; ++s) any |= to(s) >= 0 && to(s) < kTile && (own[s].a != 0 || own[s].b != 0);
      if (!any) continue;  // as for all locations outside the frame
      A g[V], q[V];
      load<V>(from.grad + (start + window_row * shape.width) * shape.channels + c, g);
      load<V>(from.x + (start + window_row * shape.width) * shape.channels + c, q);
#pragma unroll
      for (int s = 0; s < kSpan; ++s) {
        if (to(s) < 0 || to(s) >= kTile) continue;
#pragma unroll
        for (int v = 0; v < V; ++v) {
          total[to(s)][v] += own[s].a * g[v];  // apart, for two fused operations and not three
          total[to(s)][v] += own[s].b * q[v];
        }
      }
    }
  }
#pragma unroll
  for (int row = 0; row < kTile; ++row) {
    if (top + row >= shape.height) break;
    const int64_t at =
        (static_cast<int64_t>(frame) * shape.pixels() + (top + row) * shape.width + column) * shape.channels + c;
    A whole[V];
    load<V>(sum + at, whole);
#pragma unroll
    for (int v = 0; v < V; ++v) whole[v] += total[row][v];
    store<V>(grad_x + at, whole);
  }
}

// From here on the host. Every launch has blocks_per_frame blocks for each frame of the batch, all along x.
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

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

int power_of_two(int64_t at_least, int most) {
  int power = 1;
  while (power < at_least && power < most) power *= 2;
  return power;
}

bool is_empty(const Problem& p) { return p.batch * p.channels * p.steps * p.pixels() == 0; }

// f32 counts rows and columns exactly up to 2^24, and a frame's taps and a clip's frames must fit in 32 bits.
bool is_supported(const Problem& p) {
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
dim3 lanes_by_locations(const Problem& problem, int vector_width) {
  const int lanes = power_of_two(divide_up(problem.channels, 2 * vector_width), 32);
  return dim3(lanes, kLocationThreads / lanes);
}

template <typename T, int V, typename A = Accumulated<T>>
cudaError_t scatter_and_gather(const Launch& launch, const Gradients<T, A>& from, A* sum, T* grad_x,
                               bool deterministic) {
  const Problem& problem = launch.problem;
  const int64_t vectors = problem.channels / V;
  if (problem.steps > 1) {
    const int threads = deterministic ? 32 : kLocationThreads;
    const int64_t work = deterministic ? vectors : problem.pixels();
    const auto kernel = deterministic ? scatter_in_order<T, V> : scatter<T, V>;
    if (const auto error = launch(kernel, dim3(threads), divide_up(work, threads), from, sum)) return error;
  }
  const int lanes = kThreads / kTile < vectors ? kThreads / kTile : std::max(power_of_two(vectors, 32), kTile);
  const int64_t tiles = divide_up(problem.height, kTile) * divide_up(problem.width, kTile);
  return launch(gather<T, V>, dim3(lanes, kTile), tiles * divide_up(vectors, lanes), from, sum, grad_x);
}

}  // namespace

int sifa_cuda_forward(const void* x, const void* offset, void* out, const Problem& problem, void* stream) {
  if (is_empty(problem)) return cudaSuccess;
  if (!is_supported(problem)) return cudaErrorInvalidValue;
  const Launch launch{problem, static_cast<cudaStream_t>(stream)};
  return dispatch(problem, are_aligned(x, out), [&](auto element, auto width) {
    using T = decltype(element);
    constexpr int V = decltype(width)::value;
    const dim3 block = lanes_by_locations(problem, V);
    const auto kernel = problem.channels > 2 * V * 32 ? forward<T, V, 4> : forward<T, V, 2>;
    return launch(kernel, block, divide_up(problem.pixels(), block.y), static_cast<const T*>(x),
                  static_cast<const Accumulated<T>*>(offset), static_cast<T*>(out));
  });
}

int sifa_cuda_backward(const void* grad, const void* x, const void* offset, void* grad_x, void* grad_offset, void* sum,
                       void* coefficients, const Problem& problem, bool deterministic, void* stream) {
  if (is_empty(problem)) return cudaSuccess;
  if (!is_supported(problem)) return cudaErrorInvalidValue;
  const Launch launch{problem, static_cast<cudaStream_t>(stream)};
  return dispatch(problem, are_aligned(grad, x, grad_x, sum), [&](auto element, auto width) {
    using T = decltype(element);
    using A = Accumulated<T>;
    constexpr int V = decltype(width)::value;
    const Gradients<T, A> from{static_cast<const T*>(grad), static_cast<const T*>(x), static_cast<const A*>(offset),
                               static_cast<A*>(coefficients)};
    const dim3 block = lanes_by_locations(problem, V);
    const auto kernel = query_gradient<T, V, 2>;
    const auto error = launch(kernel, block, divide_up(problem.pixels(), block.y), from, static_cast<A*>(grad_offset),
                              static_cast<A*>(sum), static_cast<A*>(coefficients));
    if (error != cudaSuccess) return error;
    // Four channels at a time here: what a float4 holds.
    return scatter_and_gather<T, (V < 4 ? V : 4)>(launch, from, static_cast<A*>(sum), static_cast<T*>(grad_x),
                                                  deterministic);
  });
}

const char* sifa_cuda_error_string(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }
