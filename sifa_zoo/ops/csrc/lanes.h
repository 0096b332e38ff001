// Vectors of channels for one instruction set, and how each dtype is loaded into them and stored from them.
//
// This file and attention_cpu.cpp are compiled once per instruction set, each time into a namespace of its own. They
// use no inline function of the standard library: the linker keeps one copy of such a function, and it might be the one
// with instructions that the machine does not have.
#pragma once

#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#ifndef SIFA_INSTRUCTION_SET
#define SIFA_INSTRUCTION_SET baseline
#endif

namespace sifa {
namespace SIFA_INSTRUCTION_SET {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

typedef float Floats __attribute__((vector_size(kVectorBytes)));
typedef double Doubles __attribute__((vector_size(kVectorBytes)));
typedef int32_t Ints __attribute__((vector_size(kVectorBytes)));
typedef int64_t Longs __attribute__((vector_size(kVectorBytes)));
typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));
typedef uint16_t HalfWords __attribute__((vector_size(kVectorBytes / 2)));

// The type to accumulate in, its vector, how many values that holds, and integers of the same width.
template <class T>
struct Accumulate {
  using Scalar = float;
  using Vector = Floats;
  using Integer = int32_t;
  using Integers = Ints;
};
template <>
struct Accumulate<double> {
  using Scalar = double;
  using Vector = Doubles;
  using Integer = int64_t;
  using Integers = Longs;
};
template <class T>
using Acc = typename Accumulate<T>::Scalar;
template <class T>
using Vec = typename Accumulate<T>::Vector;
template <class T>
using Integers = typename Accumulate<T>::Integers;
template <class T>
constexpr int kLanes = kVectorBytes / sizeof(Acc<T>);

inline Floats load(const float* from) {
  Floats v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

inline Doubles load(const double* from) {
  Doubles v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

// GCC's own conversion of vectors to other widths takes several shuffles.
#if defined(__AVX512F__)
inline Words load_words(const void* from) {
  return (Words)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from));
}

inline void store_words(Words v, void* to) { _mm256_storeu_si256((__m256i*)to, _mm512_cvtepi32_epi16((__m512i)v)); }
#elif defined(__AVX2__)
inline Words load_words(const void* from) {
  return (Words)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)from));
}

inline void store_words(Words v, void* to) {
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32((__m256i)v, (__m256i)v), 0xd8);
  _mm_storeu_si128((__m128i*)to, _mm256_castsi256_si128(packed));
}
#else
inline Words load_words(const void* from) {
  HalfWords v;
  __builtin_memcpy(&v, from, sizeof v);
  return __builtin_convertvector(v, Words);
}

inline void store_words(Words v, void* to) {
  HalfWords narrow = __builtin_convertvector(v, HalfWords);
  __builtin_memcpy(to, &narrow, sizeof narrow);
}
#endif

inline Floats load(const BFloat16* from) { return (Floats)(load_words(from) << 16); }

inline void store(Floats v, float* to) { __builtin_memcpy(to, &v, sizeof v); }

inline void store(Doubles v, double* to) { __builtin_memcpy(to, &v, sizeof v); }

inline void store(Floats v, BFloat16* to) {
  const Words bits = (Words)v;
  const Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
  const Words is_nan = (Words)(v != v);
  store_words((rounded & ~is_nan) | (0x7fc0 & is_nan), to);
}

#if defined(__AVX512F__)
inline Floats load(const Half* from) { return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)from)); }

inline void store(Floats v, Half* to) {
  _mm256_storeu_si256((__m256i*)to, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

inline float sum(Floats v) { return _mm512_reduce_add_ps((__m512)v); }

inline double sum(Doubles v) { return _mm512_reduce_add_pd((__m512d)v); }
#elif defined(__AVX2__)
inline Floats load(const Half* from) { return (Floats)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)from)); }

inline void store(Floats v, Half* to) {
  _mm_storeu_si128((__m128i*)to, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
}

inline float sum(Floats v) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

inline double sum(Doubles v) { return (v[0] + v[2]) + (v[1] + v[3]); }
#else
// Subnormal and normal halves become floats by a shift of the bits and a change of exponent; infinity and NaN keep all
// exponent bits.
inline Floats load(const Half* from) {
  const Words bits = load_words(from);
  const Words magnitude = (bits & 0x7fff) << 13;
  const Floats scaled = (Floats)magnitude * 0x1p112f;
  const Words special = (Words)((bits & 0x7c00) == 0x7c00) & 0x7f800000;
  return (Floats)((Words)scaled | special | (bits & 0x8000) << 16);
}

inline uint16_t half_bits(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  const uint32_t sign = bits >> 16 & 0x8000;
  bits &= 0x7fffffff;
  if (bits >= 0x47800000) return sign | (bits > 0x7f800000 ? 0x7e00 : 0x7c00);  // NaN, infinity, or too large
  if (bits < 0x38800000) {  // subnormal: adding 0.5 leaves the rounded value in the last bits
    float magnitude;
    __builtin_memcpy(&magnitude, &bits, sizeof bits);
    magnitude += 0.5f;
    __builtin_memcpy(&bits, &magnitude, sizeof bits);
    return sign | (bits - 0x3f000000);
  }
  return sign | ((bits - 0x38000000 + 0xfff + (bits >> 13 & 1)) >> 13);  // to nearest, ties to even
}

inline void store(Floats v, Half* to) {
  for (int i = 0; i < kLanes<Half>; ++i) to[i].bits = half_bits(v[i]);
}

inline float sum(Floats v) { return (v[0] + v[2]) + (v[1] + v[3]); }

inline double sum(Doubles v) { return v[0] + v[1]; }
#endif

// A full vector of channels, or the part of one that is left at the end of a row: missing channels are zero.
struct Full {
  template <class T>
  Vec<T> read(const T* from) const {
    return load(from);
  }
  template <class T>
  void write(Vec<T> v, T* to) const {
    store(v, to);
  }
};

struct Part {
  int64_t channels;

  template <class T>
  Vec<T> read(const T* from) const {
    T buffer[kLanes<T>] = {};
    __builtin_memcpy(buffer, from, channels * sizeof(T));
    return load(buffer);
  }
  template <class T>
  void write(Vec<T> v, T* to) const {
    T buffer[kLanes<T>];
    store(v, buffer);
    __builtin_memcpy(to, buffer, channels * sizeof(T));
  }
};

// Calls f(first channel, Full or Part) over `channels` channels.
template <class T, class F>
inline void each_vector(int64_t channels, F f) {
  int64_t c = 0;
  for (; c + kLanes<T> <= channels; c += kLanes<T>) f(c, Full{});
  if (c < channels) f(c, Part{channels - c});
}

}  // namespace SIFA_INSTRUCTION_SET
}  // namespace sifa
