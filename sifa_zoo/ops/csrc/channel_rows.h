// Arithmetic with rows of channels: products, weighted sums, and adding to several rows at once.
#pragma once

#include "lanes.h"

namespace sifa {
namespace SIFA_INSTRUCTION_SET {

// Copies `count` numbers to another dtype; T is the narrower one.
template <class T, class From, class To>
void copy_row(const From* from, int64_t count, To* to) {
  each_vector<T>(count, [&](int64_t c, auto part) { part.write(part.read(from + c), to + c); });
}

// A row in the dtype to accumulate in: itself, or a copy in `buffer`.
inline const float* widen(const float* row, int64_t, float*) { return row; }

inline const double* widen(const double* row, int64_t, double*) { return row; }

template <class T>
const float* widen(const T* row, int64_t channels, float* buffer) {
  copy_row<T>(row, channels, buffer);
  return buffer;
}

// Writes numbers of the dtype to accumulate in at `index` of an array of the same dtype, or of T if `narrowed`.
template <class T>
void put(const Acc<T>* from, int64_t count, bool narrowed, void* array, int64_t index) {
  if (narrowed) {
    copy_row<T>(from, count, (T*)array + index);
  } else {
    copy_row<Acc<T>>(from, count, (Acc<T>*)array + index);
  }
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
  const T* start;  // a row to begin the sum with, or null
};

template <int U, class T, class Out, class Extent>
inline void blend_vectors(const WeightedRows<T>& rows, int64_t c, Extent part, Out* out) {
  Vec<T> sums[U] = {};
  for (int u = 0; rows.start && u < U; ++u) sums[u] = part.read(rows.start + c + u * kLanes<T>);
  for (int64_t j = 0; j < rows.count; ++j) {
    const T* row = rows.frame + rows.pixels[j] * rows.channels + c;
    for (int u = 0; u < U; ++u) sums[u] += rows.weights[j] * part.read(row + u * kLanes<T>);
  }
  for (int u = 0; u < U; ++u) part.write(sums[u], out + c + u * kLanes<T>);
}

// out = the start and the sum of weight times row.
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

}  // namespace SIFA_INSTRUCTION_SET
}  // namespace sifa
