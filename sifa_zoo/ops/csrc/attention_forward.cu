// CUDA: forward of `sifa::inter_frame_attention`, one group of lanes per location, every lane with its share of the
// channels. ../reference.py has the arithmetic, attention.h the layout of memory.
#include "launch.h"

namespace {

using namespace sifa;

// Samples a tap, for the channels of a lane.
template <int V, int R, typename T, typename A>
__device__ void sample_tap(const T* value, const Tap<A>& tap, const Shape& shape, const Channels<V, R>& channels,
                           A (&sample)[R * V]) {
#pragma unroll
  for (int corner = 0; corner < 4; ++corner) {
    const T* row = value + static_cast<int64_t>(tap.pixel(corner, shape.width)) * shape.channels;
    const A weight = tap.weight(corner);
#pragma unroll
    for (int r = 0; r < R; ++r) {
      A pixel[V];
      load<V>(row + channels.at(r), pixel);
#pragma unroll
      for (int v = 0; v < V; ++v) sample[r * V + v] += weight * pixel[v];
    }
  }
}

// A lane's part of <q, s_k> over the channels outside its chunk.
template <int V, int R, typename T, typename A>
__device__ A dot_outside(const T* query, const T* value, const Tap<A>& tap, const Shape& shape,
                         const Channels<V, R>& chunk) {
  A total = 0;
  for (int c = threadIdx.x * V; c < shape.channels; c += blockDim.x * V) {
    if (chunk.holds(c)) continue;
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      const T* row = value + static_cast<int64_t>(tap.pixel(corner, shape.width)) * shape.channels;
      total += tap.weight(corner) * dot<V, A>(query + c, row + c);
    }
  }
  return total;
}

template <typename T, typename O, int V, int R, typename A = Accumulated<T>>
__global__ void __launch_bounds__(kLocationThreads)
    forward(const T* x, const O* offset, T* out, const bool residual, const Shape shape, const int blocks_per_frame) {
  const Place place = find_place(shape, blocks_per_frame);
  const bool last = place.step == shape.steps - 1;
  const int64_t location = place.frame * shape.pixels() + place.pixel;
  const T* query = x + location * shape.channels;
  const T* value = x + (place.frame + 1) * shape.pixels() * shape.channels;
  const O* offsets = last ? nullptr : offset + shape.offset_at(place.frame, place.pixel);
  const A scale = A(1) / shape.channels;
  for (int chunk = 0; chunk < shape.channels; chunk += Channels<V, R>::span()) {
    const Channels<V, R> channels(chunk, shape.channels);
    A q[R * V], attended[R * V];
    channels.load_row(query, q);
#pragma unroll
    for (int e = 0; e < R * V; ++e) attended[e] = residual ? q[e] : A(0);
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

}  // namespace

int sifa_attention_forward(const Attention* problem, const void* x, const void* offset, void* out, const void* where) {
  const Attention& p = *problem;
  if (is_empty(p)) return cudaSuccess;
  if (!is_supported(p)) return cudaErrorInvalidValue;
  const Launch launch{p, stream_of(where)};
  return with_vector(p.dtype, p.channels, are_aligned(x, out), [&](auto element, auto width) {
    using T = decltype(element);
    constexpr int V = decltype(width)::value;
    return with_offset<T>(p, [&](auto number) {
      using O = decltype(number);
      const dim3 block = lanes_by_locations(p, V);
      const auto kernel = p.channels > 2 * V * 32 ? forward<T, O, V, 4> : forward<T, O, V, 2>;
      return launch(kernel, block, divide_up(p.pixels(), block.y), static_cast<const T*>(x),
                    static_cast<const O*>(offset), static_cast<T*>(out), p.residual != 0);
    });
  });
}

const char* sifa_error(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }
