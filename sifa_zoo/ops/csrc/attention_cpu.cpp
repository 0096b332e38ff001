// CPU kernels of inter-frame attention for one instruction set.
//
// For the distinct pixels p_j under the taps of a location, bilinear weights w_kj, query q and upstream gradient g:
//
//   D_j = <q, p_j>    a_k = sum_j w_kj D_j / C    A_j = sum_k a_k w_kj    out = sum_j A_j p_j
//   G_j = <g, p_j>    b_k = sum_j w_kj G_j / C    B_j = sum_k b_k w_kj    dq = sum_j B_j p_j    dp_j = A_j g + B_j q
//
// so that no sample is ever stored. Sums are taken in one order, whatever the number of threads.
#include "attention_cpu.h"

#include "lanes.h"
#include "neighbourhood.h"

namespace sifa {
namespace SIFA_INSTRUCTION_SET {
namespace {

struct Location {
  int64_t sample, step, row, column, pixel;
};

// Calls f(Location) for the locations of all pairs from `begin` to `end`.
template <class F>
void each_location(const Problem& p, int64_t begin, int64_t end, F f) {
  const int64_t pair = begin / p.pixels(), pixel = begin % p.pixels();
  Location at{pair / (p.steps - 1), pair % (p.steps - 1), pixel / p.width, pixel % p.width, pixel};
  for (int64_t i = begin; i < end; ++i) {
    f(at);
    ++at.pixel;
    if (++at.column < p.width) continue;
    at.column = 0;
    if (++at.row < p.height) continue;
    at.row = at.pixel = 0;
    if (++at.step < p.steps - 1) continue;
    at.step = 0;
    ++at.sample;
  }
}

// Rows of channels of a tensor (N, T, H, W, channels).
template <class T>
struct Frames {
  T* data;
  int64_t steps, pixels, channels;

  Frames(T* data, const Problem& p, int64_t channels)
      : data(data), steps(p.steps), pixels(p.pixels()), channels(channels) {}
  T* frame(int64_t sample, int64_t step) const { return data + (sample * steps + step) * pixels * channels; }
  T* row(int64_t sample, int64_t step, int64_t pixel) const { return frame(sample, step) + pixel * channels; }
};

inline const float* widen(const float* row, int64_t, float*) { return row; }

inline const double* widen(const double* row, int64_t, double*) { return row; }

template <class T>
const float* widen(const T* row, int64_t channels, float* buffer) {
  each_vector<T>(channels, [&](int64_t c, auto part) { part.write(part.read(row + c), buffer + c); });
  return buffer;
}

// results[q][j] = <queries[q], row j> for R rows of `frame`.
template <int Q, int R, class T>
inline void dot_rows(const Acc<T>* const (&queries)[Q], const T* frame, const int64_t* pixels, int64_t channels,
                     Acc<T>* const (&results)[Q], int64_t first) {
  const T* rows[R];
  for (int r = 0; r < R; ++r) rows[r] = frame + pixels[first + r] * channels;
  Vec<T> sums[Q][R] = {};
  each_vector<T>(channels, [&](int64_t c, auto part) {
    Vec<T> query[Q];
    for (int q = 0; q < Q; ++q) query[q] = part.read(queries[q] + c);
    for (int r = 0; r < R; ++r) {
      const Vec<T> values = part.read(rows[r] + c);
      for (int q = 0; q < Q; ++q) sums[q][r] += query[q] * values;
    }
  });
  for (int q = 0; q < Q; ++q) {
    for (int r = 0; r < R; ++r) results[q][first + r] = sum(sums[q][r]);
  }
}

template <int Q, class T>
void dots(const Acc<T>* const (&queries)[Q], const T* frame, const int64_t* pixels, int64_t count, int64_t channels,
          Acc<T>* const (&results)[Q]) {
  constexpr int kMany = 8 / Q;  // sums to keep in registers: enough to hide the latency of an addition
  int64_t j = 0;
  for (; j + kMany <= count; j += kMany) dot_rows<Q, kMany>(queries, frame, pixels, channels, results, j);
  for (; j + 2 <= count; j += 2) dot_rows<Q, 2>(queries, frame, pixels, channels, results, j);
  for (; j < count; ++j) dot_rows<Q, 1>(queries, frame, pixels, channels, results, j);
}

// The pixels of one location with a weight each, of some of the channels of a frame.
template <class T>
struct WeightedRows {
  const T* frame;
  int64_t channels;  // of the frame: the distance between two rows
  const int64_t* pixels;
  const Acc<T>* weights;
  int64_t count;
};

template <int U, class T, class Out, class Extent>
inline void blend_vectors(const WeightedRows<T>& rows, int64_t c, Extent part, Out* out) {
  Vec<T> sums[U] = {};
  for (int64_t j = 0; j < rows.count; ++j) {
    const T* row = rows.frame + rows.pixels[j] * rows.channels + c;
    for (int u = 0; u < U; ++u) sums[u] += rows.weights[j] * part.read(row + u * kLanes<T>);
  }
  for (int u = 0; u < U; ++u) part.write(sums[u], out + c + u * kLanes<T>);
}

// out = sum of weight times row.
template <class T, class Out>
void blend(const WeightedRows<T>& rows, int64_t channels, Out* out) {
  int64_t c = 0;
  for (; c + 8 * kLanes<T> <= channels; c += 8 * kLanes<T>) blend_vectors<8>(rows, c, Full{}, out);
  for (; c + 4 * kLanes<T> <= channels; c += 4 * kLanes<T>) blend_vectors<4>(rows, c, Full{}, out);
  for (; c + kLanes<T> <= channels; c += kLanes<T>) blend_vectors<1>(rows, c, Full{}, out);
  if (c < channels) blend_vectors<1>(rows, c, Part{channels - c}, out);
}

// What one location adds to the gradient of the pixels under its taps.
template <class T>
struct Contribution {
  const T *grad, *query;
  const Acc<T>*grad_weights, *query_weights;
  const int64_t* pixels;
  int64_t count;
};

template <int U, class T, class Extent>
inline void scatter_vectors(const Contribution<T>& from, int64_t c, Extent part, Acc<T>* sums, int64_t channels) {
  Vec<T> grad[U], query[U];
  for (int u = 0; u < U; ++u) {
    grad[u] = part.read(from.grad + c + u * kLanes<T>);
    query[u] = part.read(from.query + c + u * kLanes<T>);
  }
  for (int64_t j = 0; j < from.count; ++j) {
    Acc<T>* row = sums + from.pixels[j] * channels + c;
    for (int u = 0; u < U; ++u, row += kLanes<T>) {
      part.write(part.read(row) + from.grad_weights[j] * grad[u] + from.query_weights[j] * query[u], row);
    }
  }
}

template <class T>
void scatter(const Contribution<T>& from, Acc<T>* sums, int64_t channels) {
  int64_t c = 0;
  for (; c + 4 * kLanes<T> <= channels; c += 4 * kLanes<T>) scatter_vectors<4>(from, c, Full{}, sums, channels);
  for (; c + kLanes<T> <= channels; c += kLanes<T>) scatter_vectors<1>(from, c, Full{}, sums, channels);
  if (c < channels) scatter_vectors<1>(from, c, Part{channels - c}, sums, channels);
}

// The sum over the corners of tap k of weight times value.
template <class A>
inline A at_tap(const Neighbourhood<A>& near, int64_t k, const A* values) {
  A total = 0;
  for (int i = 0; i < 4; ++i) total += near.weight(k, i) * values[near.corners(k)[i]];
  return total;
}

template <class A>
inline void add_at_corners(const Neighbourhood<A>& near, int64_t k, A value, A* weights) {
  for (int i = 0; i < 4; ++i) weights[near.corners(k)[i]] += value * near.weight(k, i);
}

template <class A>
inline void clear(A* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] = 0;
}

template <class T>
int64_t scratch_bytes(const Problem& p, int64_t block_channels) {
  const int64_t values = 2 * p.channels + 2 * (4 * p.taps() + 1) + p.pixels() * block_channels;
  return 8 * 64 + values * sizeof(Acc<T>) + Neighbourhood<Acc<T>>::scratch_bytes(p);
}

template <class T>
void forward(const Problem& p, const void* x, const void* offset, void* out, int64_t begin, int64_t end, void* memory) {
  using A = Acc<T>;
  char* scratch = (char*)memory;
  A* query_buffer = carve<A>(scratch, p.channels);
  A* products = carve<A>(scratch, 4 * p.taps() + 1);
  A* weights = carve<A>(scratch, 4 * p.taps() + 1);
  Neighbourhood<A> near(p, scratch);
  const Frames<const T> input((const T*)x, p, p.channels);
  const Frames<const A> offsets((const A*)offset, p, 2 * p.taps());
  const Frames<T> output((T*)out, p, p.channels);
  const A scale = A(1) / p.channels;

  each_location(p, begin, end, [&](const Location& at) {
    near.find(at.row, at.column, offsets.row(at.sample, at.step + 1, at.pixel), false);
    const T* next = input.frame(at.sample, at.step + 1);
    const A* query = widen(input.row(at.sample, at.step, at.pixel), p.channels, query_buffer);
    dots<1, T>({query}, next, near.pixels(), near.count(), p.channels, {products});
    products[near.nowhere] = 0;
    clear(weights, near.count());
    for (int64_t k = 0; k < p.taps(); ++k) {
      add_at_corners(near, k, at_tap(near, k, products) * scale, weights);
    }
    blend<T>({next, p.channels, near.pixels(), weights, near.count()}, p.channels,
             output.row(at.sample, at.step, at.pixel));
    if (at.step == p.steps - 2) {  // no frame follows the last one
      __builtin_memset(output.row(at.sample, at.step + 1, at.pixel), 0, p.channels * sizeof(T));
    }
  });
}

template <class T>
void coefficients(const Problem& p, const void* grad, const void* x, const void* offset, void* grad_offset,
                  void* coefficients, int64_t begin, int64_t end, void* memory) {
  using A = Acc<T>;
  char* scratch = (char*)memory;
  A* query_buffer = carve<A>(scratch, p.channels);
  A* grad_buffer = carve<A>(scratch, p.channels);
  A* query_products = carve<A>(scratch, 4 * p.taps() + 1);
  A* grad_products = carve<A>(scratch, 4 * p.taps() + 1);
  Neighbourhood<A> near(p, scratch);
  const Frames<const T> input((const T*)x, p, p.channels), upstream((const T*)grad, p, p.channels);
  const Frames<const A> offsets((const A*)offset, p, 2 * p.taps());
  const Frames<A> result((A*)coefficients, p, 2 * p.taps()), slopes((A*)grad_offset, p, 2 * p.taps());
  const A scale = A(1) / p.channels;

  each_location(p, begin, end, [&](const Location& at) {
    near.find(at.row, at.column, offsets.row(at.sample, at.step + 1, at.pixel), true);
    const A* query = widen(input.row(at.sample, at.step, at.pixel), p.channels, query_buffer);
    const A* g = widen(upstream.row(at.sample, at.step, at.pixel), p.channels, grad_buffer);
    dots<2, T>({query, g}, input.frame(at.sample, at.step + 1), near.pixels(), near.count(), p.channels,
               {query_products, grad_products});
    query_products[near.nowhere] = grad_products[near.nowhere] = 0;
    A* ab = result.row(at.sample, at.step + 1, at.pixel);
    A* slope = slopes.row(at.sample, at.step + 1, at.pixel);
    for (int64_t k = 0; k < p.taps(); ++k) {
      const A down = near.down(k), right = near.right(k);
      const A a = at_tap(near, k, query_products) * scale, b = at_tap(near, k, grad_products) * scale;
      A along[4];  // the gradient of a corner's weight
      for (int i = 0; i < 4; ++i)
        along[i] = a * grad_products[near.corners(k)[i]] + b * query_products[near.corners(k)[i]];
      ab[2 * k] = a;
      ab[2 * k + 1] = b;
      slope[2 * k] = (1 - right) * (along[2] - along[0]) + right * (along[3] - along[1]);
      slope[2 * k + 1] = (1 - down) * (along[1] - along[0]) + down * (along[3] - along[2]);
    }
    if (at.step == 0) clear(slopes.row(at.sample, 0, at.pixel), 2 * p.taps());  // the offsets of frame 0 are not used
  });
}

template <class T>
void gradient(const Problem& p, const void* grad, const void* x, const void* offset, const void* coefficients,
              void* grad_x, const GradientBlock& block, void* memory) {
  using A = Acc<T>;
  char* scratch = (char*)memory;
  A* sums = carve<A>(scratch, p.pixels() * block.channels);
  A* a_weights = carve<A>(scratch, 4 * p.taps() + 1);
  A* b_weights = carve<A>(scratch, 4 * p.taps() + 1);
  Neighbourhood<A> near(p, scratch);
  const Frames<const T> input((const T*)x + block.first_channel, p, p.channels);
  const Frames<const T> upstream((const T*)grad + block.first_channel, p, p.channels);
  const Frames<const A> offsets((const A*)offset, p, 2 * p.taps()), ab((const A*)coefficients, p, 2 * p.taps());
  const Frames<T> result((T*)grad_x + block.first_channel, p, p.channels);

  const auto weigh = [&](const Location& at, bool with_a) {
    near.find(at.row, at.column, offsets.row(at.sample, at.step + 1, at.pixel), false);
    const A* values = ab.row(at.sample, at.step + 1, at.pixel);
    clear(a_weights, near.count());
    clear(b_weights, near.count());
    for (int64_t k = 0; k < p.taps(); ++k) {
      if (with_a) add_at_corners(near, k, values[2 * k], a_weights);
      add_at_corners(near, k, values[2 * k + 1], b_weights);
    }
  };
  const auto each_of_pair = [&](int64_t step, auto f) {
    const int64_t first = (block.sample * (p.steps - 1) + step) * p.pixels();
    each_location(p, first, first + p.pixels(), f);
  };

  if (block.step < p.steps - 1) {  // as the frame of the queries
    const T* next = input.frame(block.sample, block.step + 1);
    each_of_pair(block.step, [&](const Location& at) {
      weigh(at, false);
      blend<T>({next, p.channels, near.pixels(), b_weights, near.count()}, block.channels,
               sums + at.pixel * block.channels);
    });
  } else {
    clear(sums, p.pixels() * block.channels);
  }
  if (block.step > 0) {  // as the frame of the keys and values
    each_of_pair(block.step - 1, [&](const Location& at) {
      weigh(at, true);
      scatter<T>({upstream.row(at.sample, at.step, at.pixel), input.row(at.sample, at.step, at.pixel), a_weights,
                  b_weights, near.pixels(), near.count()},
                 sums, block.channels);
    });
  }
  for (int64_t pixel = 0; pixel < p.pixels(); ++pixel) {
    T* to = result.row(block.sample, block.step, pixel);
    const A* from = sums + pixel * block.channels;
    each_vector<T>(block.channels, [&](int64_t c, auto part) { part.write(part.read(from + c), to + c); });
  }
}

#define SIFA_STRING(name) #name
#define SIFA_NAME(name) SIFA_STRING(name)

template <class T>
constexpr CpuKernels kKernels{SIFA_NAME(SIFA_INSTRUCTION_SET), scratch_bytes<T>, forward<T>, coefficients<T>,
                              gradient<T>};

}  // namespace

const CpuKernels& kernels(Dtype dtype) {
  switch (dtype) {
    case Dtype::f16:
      return kKernels<Half>;
    case Dtype::bf16:
      return kKernels<BFloat16>;
    case Dtype::f64:
      return kKernels<double>;
    default:
      return kKernels<float>;
  }
}

}  // namespace SIFA_INSTRUCTION_SET
}  // namespace sifa
