// The pixels that the taps of one location touch.
#pragma once

#include "interface.h"
#include "lanes.h"

namespace sifa {
namespace SIFA_INSTRUCTION_SET {

// A part of a thread's scratch memory.
template <class T>
T* carve(char*& scratch, int64_t count) {
  T* part = (T*)scratch;
  scratch += (count * sizeof(T) + 63) / 64 * 64;
  return part;
}

// Taps of one location share most of their corners: 16 pixels instead of 36 where nine taps move together, 9 where they
// stand on whole pixels. Each pixel is listed once, so that its channels are read once, and a tap names its corners by
// their slot in that list. A corner that counts nothing has the slot `nowhere`, at which all values are zero.
template <class A>
class Neighbourhood {
 public:
  static int64_t scratch_bytes(const Attention& p) {
    const int64_t padded = p.taps() + kWidth, corners = 4 * padded;
    return 16 * 64 + (11 * padded + corners) * sizeof(A) + corners * sizeof(int32_t) +
           (corners + p.pixels() + 2) * sizeof(int64_t);
  }

  Neighbourhood(const Attention& problem, char* scratch)
      : nowhere(4 * problem.taps()),
        taps_(problem.taps()),
        padded_((problem.taps() + kWidth - 1) / kWidth * kWidth),
        height_(problem.height),
        width_(problem.width),
        rows_(carve<A>(scratch, padded_)),
        columns_(carve<A>(scratch, padded_)),
        row_moves_(carve<A>(scratch, padded_)),
        column_moves_(carve<A>(scratch, padded_)),
        down_(carve<A>(scratch, padded_)),
        right_(carve<A>(scratch, padded_)),
        weights_(carve<A>(scratch, 4 * padded_)),
        first_pixels_(carve<Lane>(scratch, padded_)),
        counts_(carve<Lane>(scratch, 4 * padded_)),
        corner_slots_(carve<int32_t>(scratch, 4 * padded_)),
        pixels_(carve<int64_t>(scratch, nowhere + 1)),
        slots_(carve<int64_t>(scratch, problem.pixels() + 1)) {
    const int64_t pad = (problem.dilation * (problem.kernel_size - 1) + 1) / 2;
    for (int64_t k = 0; k < padded_; ++k) {
      rows_[k] = k / problem.kernel_size * problem.dilation - pad;
      columns_[k] = k % problem.kernel_size * problem.dilation - pad;
      row_moves_[k] = column_moves_[k] = 0;
    }
    for (int64_t i = 0; i <= problem.pixels(); ++i) slots_[i] = -1;
  }

  // `offset` are the displacements of the location's taps. Corners of weight zero are left out, unless `with_slopes`:
  // their slopes are not zero.
  void find(int64_t row, int64_t column, const A* offset, bool with_slopes) {
    for (int64_t k = 0; k < taps_; ++k) {
      row_moves_[k] = offset[2 * k];
      column_moves_[k] = offset[2 * k + 1];
    }
    for (int64_t k = 0; k < padded_; k += kWidth) place(k, row, column, with_slopes);
    list_corners();
  }

  int64_t count() const { return count_; }
  const int64_t* pixels() const { return pixels_; }

  // Of tap k: the slots of its corners (top left, top right, bottom left, bottom right), the weight of corner i, and
  // how far it is from the top left one.
  const int32_t* corners(int64_t k) const { return corner_slots_ + 4 * k; }
  A weight(int64_t k, int i) const { return weights_[i * padded_ + k]; }
  A down(int64_t k) const { return down_[k]; }
  A right(int64_t k) const { return right_[k]; }

  const int32_t nowhere;

 private:
  using Lane = typename Accumulate<A>::Integer;
  static constexpr int kWidth = kLanes<A>;  // taps that are placed at once
  using Values = Vec<A>;
  using Whole = Integers<A>;  // and masks: -1 is true

  static Whole floor(Values value) {
    const Whole whole = __builtin_convertvector(value, Whole);
    return whole + (value < __builtin_convertvector(whole, Values));
  }

  template <class V, class Out>
  static void put(V values, Out* to) {
    __builtin_memcpy(to, &values, sizeof values);
  }

  // Positions, weights and corners of `kWidth` taps from the first one on.
  void place(int64_t first, A row, A column, bool with_slopes) {
    const A height = height_, width = width_;
    const Whole all = Whole{} - with_slopes;
    Values y = load(rows_ + first) + row, x = load(columns_ + first) + column;
    y += load(row_moves_ + first);
    x += load(column_moves_ + first);
    const Whole inside = (y > -1) & (y < height) & (x > -1) & (x < width);  // false for NaN too
    y = (Values)((Whole)y & inside);
    x = (Values)((Whole)x & inside);
    const Whole top = floor(y), left = floor(x);
    const Values down = y - __builtin_convertvector(top, Values), right = x - __builtin_convertvector(left, Values);
    const Values up = 1 - down, before = 1 - right;
    const Whole above = inside & (top >= 0) & (all | (up != 0)), here = (left >= 0) & (all | (before != 0));
    const Whole below = inside & (top + 1 < height_) & (all | (down != 0));
    const Whole next = (left + 1 < width_) & (all | (right != 0));
    put(down, down_ + first);
    put(right, right_ + first);
    put(top * width_ + left, first_pixels_ + first);
    put(up * before, weights_ + first);
    put(up * right, weights_ + first + padded_);
    put(down * before, weights_ + first + 2 * padded_);
    put(down * right, weights_ + first + 3 * padded_);
    put(above & here, counts_ + first);
    put(above & next, counts_ + first + padded_);
    put(below & here, counts_ + first + 2 * padded_);
    put(below & next, counts_ + first + 3 * padded_);
  }

  // Gives every corner that counts a slot. An entry of the table belongs to this location if it is not below
  // `first_slot_`; so the table need not be cleared. Whether a pixel is new cannot be predicted, so nothing branches on
  // it: a corner that does not count uses the spare entry.
  void list_corners() {
    const int64_t first_slot = first_slot_ += nowhere + 1, spare = int64_t(height_) * width_;
    const int64_t steps[4] = {0, 1, width_, width_ + 1};
    int64_t count = 0;
    for (int64_t k = 0; k < taps_; ++k) {
      for (int i = 0; i < 4; ++i) {
        const bool counts = counts_[i * padded_ + k];
        const int64_t pixel = counts ? first_pixels_[k] + steps[i] : spare;
        const int64_t entry = slots_[pixel];
        const bool is_new = entry < first_slot;
        const int64_t found = is_new ? count : entry - first_slot;
        slots_[pixel] = first_slot + found;
        pixels_[count] = pixel;
        corner_slots_[4 * k + i] = counts ? int32_t(found) : nowhere;
        count += is_new & counts;
      }
    }
    count_ = count;
  }

  const int64_t taps_, padded_;
  const Lane height_, width_;
  A *const rows_, *const columns_, *const row_moves_, *const column_moves_, *const down_, *const right_,
                                                                                              *const weights_;
  Lane *const first_pixels_, *const counts_;
  int32_t* const corner_slots_;
  int64_t *const pixels_, *const slots_;
  int64_t first_slot_ = 0;
  int64_t count_ = 0;
};

}  // namespace SIFA_INSTRUCTION_SET
}  // namespace sifa
