// CPU kernels for one instruction set of what surrounds inter-frame attention, each in a single pass: motion saliency,
// and the sum at the end of a block. The table of all kernels of the instruction set is here, too.
#include "channel_rows.h"
#include "cpu_kernels.h"

namespace sifa {
namespace SIFA_INSTRUCTION_SET {

const AttentionKernels& attention_kernels(Dtype dtype);  // attention_cpu.cpp

namespace {

// e^x to 2 units in the last place: 2^n e^r, where n is whole and e^r a polynomial (coefficients of Cephes).
inline Floats exp(Floats x) {
  constexpr float kLeast = -87, kMost = 88, kRound = 0x1.8p23f;         // adding kRound leaves no digits for a fraction
  const Words small = (Words)(x < kLeast), large = (Words)(x > kMost);  // neither for NaN
  const Floats limits = (Floats)((small & (Words)(Floats{} + kLeast)) | (large & (Words)(Floats{} + kMost)));
  x = (Floats)(((Words)x & ~(small | large)) | (Words)limits);
  const Floats shifted = x * 1.44269504f + kRound, n = shifted - kRound;
  const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1;
  const Words power = ((Words)shifted << 23) + 0x3f800000;  // the last bits of `shifted` count n
  return p * (Floats)power;
}

inline Doubles exp(Doubles x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = __builtin_exp(x[i]);
  return x;
}

template <class V>
inline V sigmoid(V x) {
  return 1 / (1 + exp(-x));
}

// X is the dtype of the features, Y that of the saliency.
template <class X, class Y>
void saliency_forward(const Saliency& p, const void* x, void* out, int64_t group, int64_t begin, int64_t end) {
  const X* frames = (const X*)x + group * p.steps * p.size + begin;
  Y* results = (Y*)out + group * (p.steps - 1) * p.size + begin;
  for (int64_t t = 1; t < p.steps; ++t, frames += p.size, results += p.size) {
    each_vector<X>(end - begin, [&](int64_t i, auto part) {
      const auto before = part.read(frames + i), now = part.read(frames + p.size + i);
      part.write(now + now * sigmoid(now - before), results + i);
    });
  }
}

template <class X, class Y>
void saliency_backward(const Saliency& p, const void* grad, const void* x, void* grad_x, int64_t group, int64_t begin,
                       int64_t end) {
  const X* frames = (const X*)x + group * p.steps * p.size + begin;
  const Y* upstream = (const Y*)grad + group * (p.steps - 1) * p.size + begin;
  X* results = (X*)grad_x + group * p.steps * p.size + begin;
  each_vector<X>(end - begin, [&](int64_t i, auto part) {
    Vec<X> before = part.read(frames + i), own = {};  // the frame before, and its gradient so far
    for (int64_t t = 1; t < p.steps; ++t) {
      const Vec<X> now = part.read(frames + t * p.size + i), g = part.read(upstream + (t - 1) * p.size + i);
      const Vec<X> s = sigmoid(now - before), slope = g * now * s * (1 - s);
      part.write(own - slope, results + (t - 1) * p.size + i);
      own = g + g * s + slope;
      before = now;
    }
    part.write(own, results + (p.steps - 1) * p.size + i);
  });
}

template <class X, class Y>
constexpr SaliencyKernels kSaliency{saliency_forward<X, Y>, saliency_backward<X, Y>};

SaliencyKernels saliency_kernels(Dtype dtype, Dtype out_dtype) {
  switch (dtype) {
    case Dtype::f16:
      return kSaliency<Half, Half>;
    case Dtype::bf16:
      return kSaliency<BFloat16, BFloat16>;
    case Dtype::f64:
      return kSaliency<double, double>;
    default:
      if (out_dtype == Dtype::f16) return kSaliency<float, Half>;
      if (out_dtype == Dtype::bf16) return kSaliency<float, BFloat16>;
      return kSaliency<float, float>;
  }
}

template <class T>
void context_forward(const Context& p, const void* x, const void* context, const void* shortcut, void* out,
                     int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const T *row = (const T*)x + i * p.channels, *other = (const T*)shortcut + i * p.channels;
    const Acc<T>* of_clip = (const Acc<T>*)context + i / p.locations * p.channels;
    T* to = (T*)out + i * p.channels;
    each_vector<T>(p.channels, [&](int64_t c, auto part) {
      const Vec<T> sum = part.read(row + c) + part.read(of_clip + c) + part.read(other + c);
      part.write((Vec<T>)((Integers<T>)sum & ~(sum < 0)), to + c);  // NaN stays
    });
  }
}

ContextKernel context_kernel(Dtype dtype) {
  switch (dtype) {
    case Dtype::f16:
      return context_forward<Half>;
    case Dtype::bf16:
      return context_forward<BFloat16>;
    case Dtype::f64:
      return context_forward<double>;
    default:
      return context_forward<float>;
  }
}

#define SIFA_STRING(name) #name
#define SIFA_NAME(name) SIFA_STRING(name)

}  // namespace

extern const CpuKernels kernels;
const CpuKernels kernels{SIFA_NAME(SIFA_INSTRUCTION_SET), attention_kernels, saliency_kernels, context_kernel};

}  // namespace SIFA_INSTRUCTION_SET
}  // namespace sifa
