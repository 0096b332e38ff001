// The pixels that the taps of one location touch.
#pragma once

#include "attention.h"
#include "lanes.h"

namespace sifa {
namespace SIFA_INSTRUCTION_SET {

// Taps of one location share most of their corners: 16 pixels instead of 36 where nine taps move together, 9 where they
// stand on whole pixels. Each pixel is listed once, so that its channels are read once, and a tap names its corners by
// their slot in that list. A corner that counts nothing has the slot `nowhere`, at which all values are zero.
template <class A>
class Neighbourhood {
 public:
  struct Tap {
    int32_t slot[4];  // top left, top right, bottom left, bottom right
    A weight[4];
    A down, right;  // of the position from the top left corner
  };

  static int64_t scratch_bytes(const Problem& p) {
    return 64 * 3 + p.pixels() * sizeof(int64_t) + 4 * p.taps() * sizeof(int64_t) + p.taps() * sizeof(Tap);
  }

  Neighbourhood(const Problem& problem, void* scratch)
      : nowhere(4 * problem.taps()),
        problem_(problem),
        pad_((problem.dilation * (problem.kernel_size - 1) + 1) / 2),
        taps_((Tap*)scratch),
        pixels_((int64_t*)(taps_ + problem.taps())),
        slots_(pixels_ + 4 * problem.taps()) {
    for (int64_t i = 0; i < problem.pixels(); ++i) slots_[i] = -1;
  }

  // `offset` are the displacements of the location's taps. Corners of weight zero are left out, unless `with_slopes`:
  // their slopes are not zero.
  void find(int64_t row, int64_t column, const A* offset, bool with_slopes) {
    const int64_t k_size = problem_.kernel_size, dilation = problem_.dilation;
    first_slot_ += nowhere;
    count_ = 0;
    Tap* tap = taps_;
    for (int64_t i = 0; i < k_size; ++i) {
      for (int64_t j = 0; j < k_size; ++j, ++tap, offset += 2) {
        place(*tap, A(row - pad_ + i * dilation) + offset[0], A(column - pad_ + j * dilation) + offset[1], with_slopes);
      }
    }
  }

  int64_t count() const { return count_; }
  const int64_t* pixels() const { return pixels_; }
  const Tap& tap(int64_t k) const { return taps_[k]; }

  const int32_t nowhere;

 private:
  void place(Tap& tap, A y, A x, bool with_slopes) {
    const int64_t h = problem_.height, w = problem_.width;
    if (!(y > -1 && y < A(h) && x > -1 && x < A(w))) {  // NaN too
      tap = Tap{{nowhere, nowhere, nowhere, nowhere}, {0, 0, 0, 0}, 0, 0};
      return;
    }
    const int64_t top = floor(y), left = floor(x);
    const A down = y - A(top), right = x - A(left), up = 1 - down, before = 1 - right;
    tap.down = down;
    tap.right = right;
    tap.weight[0] = up * before;
    tap.weight[1] = up * right;
    tap.weight[2] = down * before;
    tap.weight[3] = down * right;
    const bool above = top >= 0 && (with_slopes || up != 0), below = top + 1 < h && (with_slopes || down != 0);
    const bool here = left >= 0 && (with_slopes || before != 0), next = left + 1 < w && (with_slopes || right != 0);
    const int64_t pixel = top * w + left;
    tap.slot[0] = above && here ? slot(pixel) : nowhere;
    tap.slot[1] = above && next ? slot(pixel + 1) : nowhere;
    tap.slot[2] = below && here ? slot(pixel + w) : nowhere;
    tap.slot[3] = below && next ? slot(pixel + w + 1) : nowhere;
  }

  static int64_t floor(A value) {
    const int64_t whole = (int64_t)value;
    return whole - (value < A(whole));
  }

  // An entry of the table belongs to this location if it is not below `first_slot_`; so it need not be cleared.
  int32_t slot(int64_t pixel) {
    int64_t& entry = slots_[pixel];
    if (entry < first_slot_) {
      entry = first_slot_ + count_;
      pixels_[count_++] = pixel;
    }
    return int32_t(entry - first_slot_);
  }

  const Problem problem_;
  const int64_t pad_;
  Tap* const taps_;
  int64_t* const pixels_;
  int64_t* const slots_;
  int64_t first_slot_ = 0;
  int64_t count_ = 0;
};

}  // namespace SIFA_INSTRUCTION_SET
}  // namespace sifa
