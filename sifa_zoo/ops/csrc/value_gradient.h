// The gradient of the values: the second and third launch of attention_backward.cu.
#pragma once

#include <algorithm>

#include "launch.h"

namespace sifa {

constexpr int kThreads = 256;  // of a gather
constexpr int kTile = 8;       // pixels along each side of what a block gathers
constexpr int kReach = 2;      // of a gather: all taps of a 3x3 kernel, if no offset exceeds one pixel
constexpr int kSpan = 2 * kReach + 1;
constexpr int kWindow = kTile + 2 * kReach;  // locations along each side that reach a tile

// The arrays that the launches of the backward pass read.
template <typename T, typename O, typename A>
struct Gradients {
  const T* grad;
  const T* x;
  const O* offset;
  const A* coefficients;
};

// ds_k goes by `gather` to pixels of this neighbourhood, by `scatter` to all others: every corner by exactly one.
__device__ inline bool within_reach(int rows, int columns) { return abs(rows) <= kReach && abs(columns) <= kReach; }

// Bit c of the result is set where corner c of the tap has a weight and is out of reach.
template <typename A, typename O>
__device__ int find_far_corners(int64_t frame, int pixel, int i, int j, const O* offset, const Shape& shape,
                                Tap<A>& tap) {
  const int row = pixel / shape.width, column = pixel % shape.width, k = i * shape.kernel_size + j;
  const O* offsets = offset + shape.offset_at(frame, pixel) + 2 * k;
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
template <int V, bool ATOMIC, typename T, typename O, typename A>
__device__ void add_far(const Gradients<T, O, A>& from, A* sum, int64_t frame, int pixel, int k, int c, int far,
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
template <int V, typename T, typename O, typename A>
__global__ void __launch_bounds__(kLocationThreads)
    scatter(const Gradients<T, O, A> from, A* sum, const Shape shape, const int blocks_per_frame) {
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
template <int V, typename T, typename O, typename A>
__global__ void __launch_bounds__(kLocationThreads)
    scatter_in_order(const Gradients<T, O, A> from, A* sum, const Shape shape, const int blocks_per_frame) {
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

__device__ inline int folded_at(int pixel_column, int column_distance, int window_row) {
  return pixel_column * kFoldedColumn + (column_distance * kWindow + window_row) * kSpan;
}

// Fills `folded` for the tile at (top, left). A location is one thread's, so nothing is added twice at once.
template <typename T, typename O, typename A>
__device__ void fold(const Gradients<T, O, A>& from, int64_t frame, int top, int left, const Shape& shape,
                     Folded<A>* folded) {
  const int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
  for (int e = thread; e < kTile * kFoldedColumn; e += threads) folded[e] = {A(0), A(0)};
  __syncthreads();
  for (int e = thread; e < kWindow * kWindow; e += threads) {
    const int window_row = e / kWindow, window_column = e % kWindow;
    const int row = top - kReach + window_row, column = left - kReach + window_column;
    if (row < 0 || row >= shape.height || column < 0 || column >= shape.width) continue;
    const int64_t location = frame * shape.pixels() + row * shape.width + column;
    const O* offsets = from.offset + shape.offset_at(frame, row * shape.width + column);
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
template <int V, typename T, typename O, typename A>
__global__ void __launch_bounds__(kThreads)
    gather(const Gradients<T, O, A> from, const A* sum, T* grad_x, const Shape shape, const int blocks_per_frame) {
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

template <int V, typename T, typename O, typename A>
cudaError_t scatter_and_gather(const Launch& launch, const Gradients<T, O, A>& from, A* sum, T* grad_x,
                               bool deterministic) {
  const Attention& problem = launch.problem;
  const int64_t vectors = problem.channels / V;
  if (problem.steps > 1) {
    const int threads = deterministic ? 32 : kLocationThreads;
    const int64_t work = deterministic ? vectors : problem.pixels();
    const auto kernel = deterministic ? scatter_in_order<V, T, O, A> : scatter<V, T, O, A>;
    if (const auto error = launch(kernel, dim3(threads), divide_up(work, threads), from, sum)) return error;
  }
  const int lanes = kThreads / kTile < vectors ? kThreads / kTile : std::max(power_of_two(vectors, 32), kTile);
  const int64_t tiles = divide_up(problem.height, kTile) * divide_up(problem.width, kTile);
  return launch(gather<V, T, O, A>, dim3(lanes, kTile), tiles * divide_up(vectors, lanes), from, sum, grad_x);
}

}  // namespace sifa
