// CUDA: backward of `sifa::inter_frame_attention`, in three launches and none of them with an atomic where the taps
// stay near their location:
//   1. query_gradient  per location: a_k, b_k, the gradient of the offsets, and dq, the whole of it, into `sum`
//   2. scatter         adds to `sum` what goes to corners further than `kReach` from their location
//   3. gather          per 8x8 pixels: adds what all locations within reach send there, and casts the sum
#include "launch.h"
#include "value_gradient.h"

namespace {

using namespace sifa;

// The dot products of the query and the upstream gradient with the pixels at the corners of a tap.
template <typename A>
struct Dots {
  A of[8];  // D_j = <q, p_j>, then G_j = <g, p_j>

  __device__ A query(int corner) const { return of[corner]; }
  __device__ A upstream(int corner) const { return of[4 + corner]; }
};

// Samples a tap, with a lane's part of the dot products of all its corners.
template <int V, int R, typename T, typename A>
__device__ void sample_and_dot(const T* value, const Tap<A>& tap, const Shape& shape, const Channels<V, R>& channels,
                               const A (&q)[R * V], const A (&g)[R * V], A (&sample)[R * V], Dots<A>& dots) {
#pragma unroll
  for (int corner = 0; corner < 4; ++corner) {
    const T* row = value + static_cast<int64_t>(tap.pixel(corner, shape.width)) * shape.channels;
    const A weight = tap.weight(corner);
#pragma unroll
    for (int r = 0; r < R; ++r) {
      A pixel[V];
      load<V>(row + channels.at(r), pixel);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        sample[r * V + v] += weight * pixel[v];
        dots.of[corner] += q[r * V + v] * pixel[v];
        dots.of[4 + corner] += g[r * V + v] * pixel[v];
      }
    }
  }
}

template <int V, int R, typename T, typename A>
__device__ void add_dots_outside(const T* query, const T* upstream, const T* value, const Tap<A>& tap,
                                 const Shape& shape, const Channels<V, R>& chunk, Dots<A>& dots) {
  for (int c = threadIdx.x * V; c < shape.channels; c += blockDim.x * V) {
    if (chunk.holds(c)) continue;
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      const T* row = value + static_cast<int64_t>(tap.pixel(corner, shape.width)) * shape.channels;
      dots.of[corner] += dot<V, A>(query + c, row + c);
      dots.of[4 + corner] += dot<V, A>(upstream + c, row + c);
    }
  }
}

// a_k, b_k, and the gradient of the tap's offset: sum_j slope_j (a_k G_j + b_k D_j).
template <typename A>
struct TapGradient {
  A a = 0, b = 0, row = 0, column = 0;

  __device__ void set(const Tap<A>& tap, const Dots<A>& dots, A scale) {
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      a += tap.weight(corner) * scale * dots.query(corner);
      b += tap.weight(corner) * scale * dots.upstream(corner);
    }
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      const A along = a * dots.upstream(corner) + b * dots.query(corner);
      row += tap.row_slope(corner) * along;
      column += tap.column_slope(corner) * along;
    }
  }
};

// Writes dq, the coefficients (at the query's location) and the gradient of the offsets.
template <typename T, typename O, int V, int R, typename A = Accumulated<T>>
__global__ void __launch_bounds__(kLocationThreads, 3)  // four blocks would spill registers in f16 and bf16
    query_gradient(const Gradients<T, O, A> from, O* grad_offset, A* sum, A* coefficients, const bool residual,
                   const Shape shape, const int blocks_per_frame) {
  const Place place = find_place(shape, blocks_per_frame);
  const bool last = place.step == shape.steps - 1;
  const int64_t location = place.frame * shape.pixels() + place.pixel, own = location * 2 * shape.taps();
  const T* query = from.x + location * shape.channels;
  const T* upstream = from.grad + location * shape.channels;
  const T* value = from.x + (place.frame + 1) * shape.pixels() * shape.channels;
  const O* offsets = last ? nullptr : from.offset + shape.offset_at(place.frame, place.pixel);
  O* slopes = last ? nullptr : grad_offset + shape.offset_gradient_at(place.frame, place.pixel);
  const A scale = A(1) / shape.channels;
  for (int chunk = 0; chunk < shape.channels; chunk += Channels<V, R>::span()) {
    const Channels<V, R> channels(chunk, shape.channels);
    A q[R * V], g[R * V], dq[R * V];
    channels.load_row(query, q);
    channels.load_row(upstream, g);
#pragma unroll
    for (int e = 0; e < R * V; ++e) dq[e] = residual ? g[e] : A(0);
    for (int i = 0; i < (last ? 0 : shape.kernel_size); ++i) {
      for (int j = 0; j < shape.kernel_size; ++j) {
        const int k = 2 * (i * shape.kernel_size + j);
        Tap<A> tap;
        A sample[R * V] = {};
        Dots<A> dots = {};
        const bool counts = find_tap(place.row, place.column, i, j, offsets + k, shape, tap);
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
          narrow(gradient.row, slopes[k]);
          narrow(gradient.column, slopes[k + 1]);
        }
      }
    }
    if (place.exists) channels.store_row(sum + location * shape.channels, dq);
  }
}

}  // namespace

int sifa_attention_backward(const Attention* problem, const void* grad, const void* x, const void* offset, void* grad_x,
                            void* grad_offset, void* sum, void* coefficients, int deterministic, const void* where) {
  const Attention& p = *problem;
  if (is_empty(p)) return cudaSuccess;
  if (!is_supported(p)) return cudaErrorInvalidValue;
  const Launch launch{p, stream_of(where)};
  return with_vector(p.dtype, p.channels, are_aligned(grad, x, grad_x, sum), [&](auto element, auto width) {
    using T = decltype(element);
    using A = Accumulated<T>;
    constexpr int V = decltype(width)::value;
    return with_offset<T>(p, [&](auto number) {
      using O = decltype(number);
      const Gradients<T, O, A> from{static_cast<const T*>(grad), static_cast<const T*>(x),
                                    static_cast<const O*>(offset), static_cast<A*>(coefficients)};
      const dim3 block = lanes_by_locations(p, V);
      const auto kernel = query_gradient<T, O, V, 2>;
      const auto error = launch(kernel, block, divide_up(p.pixels(), block.y), from, static_cast<O*>(grad_offset),
                                static_cast<A*>(sum), static_cast<A*>(coefficients), p.residual != 0);
      if (error != cudaSuccess) return error;
      // Four channels at a time here: what a float4 holds.
      return scatter_and_gather<(V < 4 ? V : 4)>(launch, from, static_cast<A*>(sum), static_cast<T*>(grad_x),
                                                 deterministic != 0);
    });
  });
}
