// CPU kernels of inter-frame attention for one instruction set.
//
// For the distinct pixels p_j under the taps of a location, bilinear weights w_kj, query q and upstream gradient g:
//
//   D_j = <q, p_j>    a_k = sum_j w_kj D_j / C    A_j = sum_k a_k w_kj    out = sum_j A_j p_j
//   G_j = <g, p_j>    b_k = sum_j w_kj G_j / C    B_j = sum_k b_k w_kj    dq = sum_j B_j p_j    dp_j = A_j g + B_j q
//
// so that no sample is ever stored. Sums are taken in one order, whatever the number of threads.
#include "channel_rows.h"
#include "cpu_kernels.h"
#include "neighbourhood.h"

namespace sifa {
namespace SIFA_INSTRUCTION_SET {
namespace {

struct Location {
  int64_t sample, step, row, column, pixel;
};

// Calls f(Location) for the locations of all pairs from `begin` to `end`.
template <class F>
void each_location(const Attention& p, int64_t begin, int64_t end, F f) {
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

  Frames(T* data, const Attention& p, int64_t channels)
      : data(data), steps(p.steps), pixels(p.pixels()), channels(channels) {}
  T* frame(int64_t sample, int64_t step) const { return data + (sample * steps + step) * pixels * channels; }
  T* row(int64_t sample, int64_t step, int64_t pixel) const { return frame(sample, step) + pixel * channels; }
};

// Whether the offsets and their gradient are f16 or bf16.
inline bool are_narrow(const Attention& p) { return p.offset_dtype == Dtype::f16 || p.offset_dtype == Dtype::bf16; }

// The offsets of each location, in the dtype to accumulate in.
template <class T>
class Offsets {
 public:
  Offsets(const void* data, const Attention& p, char*& scratch)
      : data_(data), problem_(p), buffer_(carve<Acc<T>>(scratch, 2 * p.taps())) {}

  const Acc<T>* at(const Location& at) const {
    const int64_t index =
        at.sample * problem_.offset_sample + (at.step * problem_.pixels() + at.pixel) * problem_.offset_row;
    if (!are_narrow(problem_)) return (const Acc<T>*)data_ + index;
    return widen((const T*)data_ + index, 2 * problem_.taps(), buffer_);
  }

 private:
  const void* data_;
  const Attention& problem_;
  Acc<T>* buffer_;
};

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

// Copies a row; without one, zeros.
template <class T>
inline void set_row(T* to, const T* from, int64_t channels) {
  if (from) {
    __builtin_memcpy(to, from, channels * sizeof(T));
  } else {
    __builtin_memset(to, 0, channels * sizeof(T));
  }
}

template <class T>
int64_t scratch_bytes(const Attention& p, int64_t block_channels) {
  const int64_t values = 2 * p.channels + 2 * (4 * p.taps() + 1) + 4 * p.taps() + p.pixels() * block_channels;
  return 8 * 64 + values * sizeof(Acc<T>) + Neighbourhood<Acc<T>>::scratch_bytes(p);
}

template <class T>
void forward(const Attention& p, const void* x, const void* offset, void* out, int64_t begin, int64_t end,
             void* memory) {
  using A = Acc<T>;
  char* scratch = (char*)memory;
  A* query_buffer = carve<A>(scratch, p.channels);
  A* products = carve<A>(scratch, 4 * p.taps() + 1);
  A* weights = carve<A>(scratch, 4 * p.taps() + 1);
  const Offsets<T> offsets(offset, p, scratch);
  Neighbourhood<A> near(p, scratch);
  const Frames<const T> input((const T*)x, p, p.channels);
  const Frames<T> output((T*)out, p, p.channels);
  const A scale = A(1) / p.channels;

  each_location(p, begin, end, [&](const Location& at) {
    near.find(at.row, at.column, offsets.at(at), false);
    const T* next = input.frame(at.sample, at.step + 1);
    const A* query = widen(input.row(at.sample, at.step, at.pixel), p.channels, query_buffer);
    dots<1, T>({query}, next, near.pixels(), near.count(), p.channels, {products});
    products[near.nowhere] = 0;
    clear(weights, near.count());
    for (int64_t k = 0; k < p.taps(); ++k) {
      add_at_corners(near, k, at_tap(near, k, products) * scale, weights);
    }
    const T* own = p.residual ? input.row(at.sample, at.step, at.pixel) : nullptr;
    blend<T>({next, p.channels, near.pixels(), weights, near.count(), own}, p.channels,
             output.row(at.sample, at.step, at.pixel));
    if (at.step == p.steps - 2) {  // no frame follows the last one
      set_row(output.row(at.sample, p.steps - 1, at.pixel),
              p.residual ? input.row(at.sample, p.steps - 1, at.pixel) : nullptr, p.channels);
    }
  });
}

template <class T>
void coefficients(const Attention& p, const void* grad, const void* x, const void* offset, void* grad_offset,
                  void* coefficients, int64_t begin, int64_t end, void* memory) {
  using A = Acc<T>;
  char* scratch = (char*)memory;
  A* query_buffer = carve<A>(scratch, p.channels);
  A* grad_buffer = carve<A>(scratch, p.channels);
  A* query_products = carve<A>(scratch, 4 * p.taps() + 1);
  A* grad_products = carve<A>(scratch, 4 * p.taps() + 1);
  A* slope = carve<A>(scratch, 2 * p.taps());
  const Offsets<T> offsets(offset, p, scratch);
  Neighbourhood<A> near(p, scratch);
  const Frames<const T> input((const T*)x, p, p.channels), upstream((const T*)grad, p, p.channels);
  const Frames<A> result((A*)coefficients, p, 2 * p.taps());
  const A scale = A(1) / p.channels;

  each_location(p, begin, end, [&](const Location& at) {
    near.find(at.row, at.column, offsets.at(at), true);
    const A* query = widen(input.row(at.sample, at.step, at.pixel), p.channels, query_buffer);
    const A* g = widen(upstream.row(at.sample, at.step, at.pixel), p.channels, grad_buffer);
    dots<2, T>({query, g}, input.frame(at.sample, at.step + 1), near.pixels(), near.count(), p.channels,
               {query_products, grad_products});
    query_products[near.nowhere] = grad_products[near.nowhere] = 0;
    A* ab = result.row(at.sample, at.step + 1, at.pixel);
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
    const int64_t index = ((at.sample * (p.steps - 1) + at.step) * p.pixels() + at.pixel) * 2 * p.taps();
    put<T>(slope, 2 * p.taps(), are_narrow(p), grad_offset, index);
  });
}

template <class T>
void gradient(const Attention& p, const void* grad, const void* x, const void* offset, const void* coefficients,
              void* grad_x, const GradientBlock& block, void* memory) {
  using A = Acc<T>;
  char* scratch = (char*)memory;
  A* sums = carve<A>(scratch, p.pixels() * block.channels);
  A* a_weights = carve<A>(scratch, 4 * p.taps() + 1);
  A* b_weights = carve<A>(scratch, 4 * p.taps() + 1);
  const Offsets<T> offsets(offset, p, scratch);
  Neighbourhood<A> near(p, scratch);
  const Frames<const T> input((const T*)x + block.first_channel, p, p.channels);
  const Frames<const T> upstream((const T*)grad + block.first_channel, p, p.channels);
  const Frames<const A> ab((const A*)coefficients, p, 2 * p.taps());
  const Frames<T> result((T*)grad_x + block.first_channel, p, p.channels);

  const auto weigh = [&](const Location& at, bool with_a) {
    near.find(at.row, at.column, offsets.at(at), false);
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
      const T* own = p.residual ? upstream.row(at.sample, at.step, at.pixel) : nullptr;
      blend<T>({next, p.channels, near.pixels(), b_weights, near.count(), own}, block.channels,
               sums + at.pixel * block.channels);
    });
  } else {
    for (int64_t pixel = 0; pixel < p.pixels(); ++pixel) {
      A* to = sums + pixel * block.channels;
      if (p.residual) {
        copy_row<T>(upstream.row(block.sample, block.step, pixel), block.channels, to);
      } else {
        clear(to, block.channels);
      }
    }
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
    copy_row<T>(sums + pixel * block.channels, block.channels, result.row(block.sample, block.step, pixel));
  }
}

template <class T>
constexpr AttentionKernels kKernels{scratch_bytes<T>, forward<T>, coefficients<T>, gradient<T>};

}  // namespace

const AttentionKernels& attention_kernels(Dtype dtype) {
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
