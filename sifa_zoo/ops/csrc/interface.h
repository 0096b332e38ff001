// What the compiled kernels are asked for: sizes, dtypes, entry points. ../kernels.py calls these, and has checked all
// arguments. Nothing here or behind it needs PyTorch's headers or throws an exception: an object serves every PyTorch,
// whatever compiler built either.
//
// Memory is channels last: x, out and their gradients (N, T, H, W, C) of `dtype`. The arithmetic is written down in
// ../reference.py.
#pragma once

#include <cstdint>

namespace sifa {

enum class Dtype : int32_t { f16, bf16, f32, f64 };

// Offsets (N, T-1, H, W, at least 2*K*K) are of the dtype to accumulate in (f32, or f64 where `dtype` is f64) or of
// `dtype`. Pair t has the offsets of the taps in frame t+1; channel 2k is the row and 2k + 1 the column of tap k.
struct Attention {
  int64_t batch, channels, steps, height, width;
  int64_t kernel_size, dilation;
  int64_t offset_row;     // numbers from the offsets of a pixel to those of the next one
  int64_t offset_sample;  // and from those of a clip to those of the next
  Dtype dtype, offset_dtype;
  int32_t residual;  // whether `x` is added to the result

  int64_t taps() const { return kernel_size * kernel_size; }
  int64_t pixels() const { return height * width; }
};

// Arrays (groups, steps, size) of which every `size` numbers are one frame, or one channel of it.
struct Saliency {
  int64_t groups, steps, size;
  Dtype dtype;      // of the features and their gradient
  Dtype out_dtype;  // of the saliency and its gradient: the same, or f16 or bf16 for f32
};

// Arrays (batch, locations, channels), all frames of a clip one after the other; `context` is (batch, channels) of the
// dtype to accumulate in.
struct Context {
  int64_t batch, locations, channels;
  Dtype dtype;
};

// How the CPU kernels share out their work: PyTorch's own threads.
struct Threads {
  int32_t (*parallel_for)(int64_t begin, int64_t end, int64_t grain_size, void (*range)(int64_t, int64_t, void*),
                          void* context);
  int64_t count;
};

}  // namespace sifa

// Each object has these, for its device. They return 0 or the number of an error. `where` is a `Threads`, or the CUDA
// stream to launch on; nothing waits for a GPU or allocates there.
#define SIFA_ENTRY extern "C" __attribute__((visibility("default")))

SIFA_ENTRY int sifa_attention_forward(const sifa::Attention* problem, const void* x, const void* offset, void* out,
                                      const void* where);

// grad_offset (N, T-1, H, W, 2*K*K) is of the offsets' dtype. `coefficients` (N, T, H, W, 2*K*K) and `sum` (like
// grad_x, and the same memory where the dtypes are) are scratch of the dtype to accumulate in; a CPU needs no `sum`.
// `deterministic` asks for a fixed order of summation.
SIFA_ENTRY int sifa_attention_backward(const sifa::Attention* problem, const void* grad, const void* x,
                                       const void* offset, void* grad_x, void* grad_offset, void* sum,
                                       void* coefficients, int deterministic, const void* where);

SIFA_ENTRY int sifa_saliency_forward(const sifa::Saliency* problem, const void* x, void* out, const void* where);

SIFA_ENTRY int sifa_saliency_backward(const sifa::Saliency* problem, const void* grad, const void* x, void* grad_x,
                                      const void* where);

SIFA_ENTRY int sifa_context_forward(const sifa::Context* problem, const void* x, const void* context,
                                    const void* shortcut, void* out, const void* where);

SIFA_ENTRY const char* sifa_error(int error);
