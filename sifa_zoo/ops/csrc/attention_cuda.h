// Device code that all CUDA kernels share: vectors of channels, bilinear taps, and who does what in a block.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

namespace sifa {

constexpr unsigned kWarp = 0xffffffffu;

// What a kernel needs of a problem. 32 bits count the pixels and taps of a frame; whatever spans frames takes 64.
struct Shape {
  int channels, steps, height, width, kernel_size, dilation;
  int64_t offset_row, offset_sample;

  __host__ __device__ int taps() const { return kernel_size * kernel_size; }
  __host__ __device__ int pixels() const { return height * width; }
  __host__ __device__ int pad() const { return (dilation * (kernel_size - 1) + 1) / 2; }

  // Where the offsets of a location of the query frame n * T + t begin, and their gradient, which has no gaps.
  __device__ int64_t offset_at(int64_t frame, int pixel) const {
    const int64_t sample = frame / steps, step = frame - sample * steps;
    return sample * offset_sample + (step * pixels() + pixel) * offset_row;
  }
  __device__ int64_t offset_gradient_at(int64_t frame, int pixel) const {
    const int64_t pair = frame - frame / steps;  // one pair less than frames in each clip before
    return (pair * pixels() + pixel) * 2 * taps();
  }
};

template <typename T>
using Accumulated = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <typename T, int V>
struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) Vector {
  T at[V];
};

__device__ inline float widen(__half value) { return __half2float(value); }
__device__ inline float widen(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ inline float widen(float value) { return value; }
__device__ inline double widen(double value) { return value; }

__device__ inline void narrow(float value, __half& to) { to = __float2half_rn(value); }
__device__ inline void narrow(float value, __nv_bfloat16& to) { to = __float2bfloat16_rn(value); }
__device__ inline void narrow(float value, float& to) { to = value; }
__device__ inline void narrow(double value, double& to) { to = value; }

template <int V, typename T, typename A>
__device__ void load(const T* from, A* values) {
  const auto vector = *reinterpret_cast<const Vector<T, V>*>(from);
#pragma unroll
  for (int v = 0; v < V; ++v) values[v] = widen(vector.at[v]);
}

template <int V, typename T, typename A>
__device__ void store(T* to, const A* values) {
  Vector<T, V> vector;
#pragma unroll
  for (int v = 0; v < V; ++v) narrow(values[v], vector.at[v]);
  *reinterpret_cast<Vector<T, V>*>(to) = vector;
}

template <int V, typename A>
__device__ void add_atomically(A* to, const A* values) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  constexpr bool by_four = V == 4 && std::is_same_v<A, float>;
#else
  constexpr bool by_four = false;
#endif
  if constexpr (by_four) {
    atomicAdd(reinterpret_cast<float4*>(to), make_float4(values[0], values[1], values[2], values[3]));
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v) atomicAdd(to + v, values[v]);
  }
}

// The two lines of pixels (rows or columns) around a position. A line outside the frame has no weight and no slope, and
// stands at the border instead, so that it can be read.
template <typename A>
struct Lines {
  int at[2];
  A weight[2];
  A slope[2];
};

// False where the position does not count. The test comes first: NaN and huge numbers are no integers.
template <typename A>
__device__ bool find_lines(A position, int size, Lines<A>& lines) {
  if (!(position > A(-1) && position < A(size))) return false;
  const A start = floor(position);
  const A fraction = position - start;
  const int first = static_cast<int>(start);
  const bool has_first = first >= 0, has_second = first + 1 < size;
  lines.at[0] = has_first ? first : 0;
  lines.at[1] = has_second ? first + 1 : size - 1;
  lines.weight[0] = has_first ? 1 - fraction : A(0);
  lines.weight[1] = has_second ? fraction : A(0);
  lines.slope[0] = has_first ? A(-1) : A(0);
  lines.slope[1] = has_second ? A(1) : A(0);
  return true;
}

template <typename A>
struct Tap {
  Lines<A> rows, columns;

  __device__ int pixel(int corner, int width) const { return rows.at[corner / 2] * width + columns.at[corner % 2]; }
  __device__ A weight(int corner) const { return rows.weight[corner / 2] * columns.weight[corner % 2]; }
  __device__ A row_slope(int corner) const { return rows.slope[corner / 2] * columns.weight[corner % 2]; }
  __device__ A column_slope(int corner) const { return rows.weight[corner / 2] * columns.slope[corner % 2]; }
};

// Tap (i, j) of the location (row, column), whose offset is given. False where the tap does not count.
template <typename A, typename O>
__device__ bool find_tap(int row, int column, int i, int j, const O* offset, const Shape& shape, Tap<A>& tap) {
  const A y = static_cast<A>(row + i * shape.dilation - shape.pad()) + widen(offset[0]);
  const A x = static_cast<A>(column + j * shape.dilation - shape.pad()) + widen(offset[1]);
  const bool row_counts = find_lines(y, shape.height, tap.rows);
  return find_lines(x, shape.width, tap.columns) && row_counts;
}

// The place of a lane: threadIdx.x numbers the lanes of a location, threadIdx.y the locations of a block.
struct Place {
  int64_t frame;  // n * T + t
  int step, pixel, row, column;
  bool exists;  // lanes past the end of a frame join in the shuffles, at its last pixel
};

__device__ inline Place find_place(const Shape& shape, int blocks_per_frame) {
  const int frame = blockIdx.x / blocks_per_frame;
  const int pixel = (blockIdx.x - frame * blocks_per_frame) * blockDim.y + threadIdx.y;
  Place place;
  place.frame = frame;
  place.step = frame % shape.steps;
  place.exists = pixel < shape.pixels();
  place.pixel = place.exists ? pixel : shape.pixels() - 1;
  place.row = place.pixel / shape.width;
  place.column = place.pixel - place.row * shape.width;
  return place;
}

// Sum over the lanes of a location, a power of two of them.
template <int COUNT, typename A>
__device__ void sum_over_lanes(A (&values)[COUNT]) {
  for (int distance = blockDim.x / 2; distance > 0; distance /= 2) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) values[i] += __shfl_xor_sync(kWarp, values[i], distance);
  }
}

// The channels of a lane: R vectors of V, starting at `first`. More channels than all lanes hold are done in chunks.
template <int V, int R>
struct Channels {
  int chunk, first, stride, count;

  __device__ Channels(int chunk, int count)
      : chunk(chunk), first(chunk + threadIdx.x * V), stride(blockDim.x * V), count(count) {}
  __device__ static int span() { return blockDim.x * V * R; }  // of the chunk, over all lanes
  __device__ bool holds(int channel) const { return channel >= chunk && channel < chunk + span(); }
  __device__ bool has(int r) const { return first + r * stride < count; }
  // Where a vector is past the end, channel 0 is read instead: its query and gradient are zero, so it adds nothing.
  __device__ int at(int r) const { return has(r) ? first + r * stride : 0; }

  template <typename T, typename A>
  __device__ void load_row(const T* row, A (&values)[R * V]) const {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      load<V>(row + at(r), values + r * V);
#pragma unroll
      for (int v = 0; v < V; ++v) values[r * V + v] = has(r) ? values[r * V + v] : A(0);
    }
  }

  template <typename T, typename A>
  __device__ void store_row(T* row, const A (&values)[R * V]) const {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      if (has(r)) store<V>(row + at(r), values + r * V);
    }
  }
};

// A part of a dot product.
template <int V, typename A, typename T>
__device__ A dot(const T* one, const T* other) {
  A a[V], b[V], total = 0;
  load<V>(one, a);
  load<V>(other, b);
#pragma unroll
  for (int v = 0; v < V; ++v) total += a[v] * b[v];
  return total;
}

}  // namespace sifa
