// The entry points of interface.h on a CPU: picks the instruction set and shares the work out between threads.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "cpu_kernels.h"

namespace sifa {
namespace {

enum Error { kFine, kOutOfMemory, kNoThreads };

const CpuKernels& cpu_kernels() {
#if defined(__x86_64__)
  static const int level = [] {
    const char* wanted = std::getenv("ATEN_CPU_CAPABILITY");  // the variable that PyTorch's own kernels obey
    const char* limit = wanted ? wanted : "";
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (!std::strcmp(limit, "default") || !has_avx2) return 0;
    return !std::strcmp(limit, "avx2") || !has_avx512 ? 1 : 2;
  }();
  if (level == 2) return avx512::kernels;
  if (level == 1) return avx2::kernels;
#endif
  return baseline::kernels;
}

// Calls f(begin, end) from several threads for parts of `count` items, at least `grain` at a time.
template <class F>
int in_parallel(const void* threads, int64_t count, int64_t grain, const F& f) {
  const auto call = [](int64_t begin, int64_t end, void* context) { (*static_cast<const F*>(context))(begin, end); };
  void* context = const_cast<void*>(static_cast<const void*>(&f));
  const auto parallel_for = static_cast<const Threads*>(threads)->parallel_for;
  return parallel_for(0, count, std::max<int64_t>(1, grain), call, context) ? kNoThreads : kFine;
}

// The same with scratch memory for each part: f(begin, end, scratch).
template <class F>
int with_scratch(const void* threads, int64_t count, int64_t grain, int64_t bytes, const F& f) {
  std::atomic<bool> failed{false};
  const int error = in_parallel(threads, count, grain, [&](int64_t begin, int64_t end) {
    void* scratch = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (scratch) {
      f(begin, end, scratch);
    } else {
      failed = true;
    }
    std::free(scratch);
  });
  return error ? error : failed ? kOutOfMemory : kFine;
}

int64_t bytes_of(Dtype dtype) { return dtype == Dtype::f64 ? 8 : dtype == Dtype::f32 ? 4 : 2; }

int64_t num_locations(const Attention& p) { return p.batch * (p.steps - 1) * p.pixels(); }

int64_t grain_of(const Attention& p) { return 16384 / p.channels; }  // some 20 microseconds of work

// A clip of one frame: what is added to it, if anything, is the whole result.
void one_frame(const Attention& p, const void* from, void* to) {
  const size_t bytes = p.batch * p.pixels() * p.channels * bytes_of(p.dtype);
  if (p.residual) {
    std::memcpy(to, from, bytes);
  } else {
    std::memset(to, 0, bytes);
  }
}

// Channels that one thread takes of a frame: all of them, unless threads would be idle or their sums leave the cache.
int64_t block_channels(const Attention& p, int64_t threads) {
  constexpr int64_t kLeast = 64, kCache = 1 << 20;
  const int64_t size = p.dtype == Dtype::f64 ? 8 : 4;
  int64_t channels = p.channels;
  while (channels >= 2 * kLeast &&
         (channels * p.pixels() * size > kCache || p.batch * p.steps * (p.channels / channels) < 2 * threads)) {
    channels = (channels / 2 + kLeast - 1) / kLeast * kLeast;
  }
  return channels;
}

// Calls f(group, begin, end) for the numbers of the frames of each group.
template <class F>
int each_number(const Saliency& p, const void* threads, const F& f) {
  return in_parallel(threads, p.groups * p.size, 16384 / p.steps, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t group = begin / p.size, first = begin % p.size, count = std::min(end - begin, p.size - first);
      f(group, first, first + count);
      begin += count;
    }
  });
}

}  // namespace
}  // namespace sifa

using namespace sifa;

int sifa_attention_forward(const Attention* problem, const void* x, const void* offset, void* out, const void* where) {
  const Attention& p = *problem;
  if (p.steps == 1) return one_frame(p, x, out), kFine;
  const auto& kernels = cpu_kernels().attention(p.dtype);
  return with_scratch(
      where, num_locations(p), grain_of(p), kernels.scratch_bytes(p, 0),
      [&](int64_t begin, int64_t end, void* scratch) { kernels.forward(p, x, offset, out, begin, end, scratch); });
}

int sifa_attention_backward(const Attention* problem, const void* grad, const void* x, const void* offset, void* grad_x,
                            void* grad_offset, void* /* sum */, void* coefficients, int /* always deterministic */,
                            const void* where) {
  const Attention& p = *problem;
  if (p.steps == 1) return one_frame(p, grad, grad_x), kFine;
  const auto& kernels = cpu_kernels().attention(p.dtype);
  const int error =
      with_scratch(where, num_locations(p), grain_of(p), kernels.scratch_bytes(p, 0),
                   [&](int64_t begin, int64_t end, void* scratch) {
                     kernels.coefficients(p, grad, x, offset, grad_offset, coefficients, begin, end, scratch);
                   });
  if (error) return error;
  const int64_t width = block_channels(p, static_cast<const Threads*>(where)->count);
  const int64_t blocks = (p.channels + width - 1) / width, frames = p.batch * p.steps;
  return with_scratch(
      where, blocks * frames, 1, kernels.scratch_bytes(p, width), [&](int64_t begin, int64_t end, void* scratch) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t first = i / frames * width, frame = i % frames;
          const GradientBlock block{frame / p.steps, frame % p.steps, first, std::min(width, p.channels - first)};
          kernels.gradient(p, grad, x, offset, coefficients, grad_x, block, scratch);
        }
      });
}

int sifa_saliency_forward(const Saliency* problem, const void* x, void* out, const void* where) {
  const auto kernels = cpu_kernels().saliency(problem->dtype, problem->out_dtype);
  return each_number(*problem, where, [&](int64_t group, int64_t begin, int64_t end) {
    kernels.forward(*problem, x, out, group, begin, end);
  });
}

int sifa_saliency_backward(const Saliency* problem, const void* grad, const void* x, void* grad_x, const void* where) {
  const auto kernels = cpu_kernels().saliency(problem->dtype, problem->out_dtype);
  return each_number(*problem, where, [&](int64_t group, int64_t begin, int64_t end) {
    kernels.backward(*problem, grad, x, grad_x, group, begin, end);
  });
}

int sifa_context_forward(const Context* problem, const void* x, const void* context, const void* shortcut, void* out,
                         const void* where) {
  const Context& p = *problem;
  const auto kernel = cpu_kernels().context(p.dtype);
  return in_parallel(where, p.batch * p.locations, 32768 / p.channels,
                     [&](int64_t begin, int64_t end) { kernel(p, x, context, shortcut, out, begin, end); });
}

const char* sifa_error(int error) {
  return error == kOutOfMemory ? "out of memory" : error == kNoThreads ? "PyTorch's parallel_for failed" : "no error";
}

SIFA_ENTRY const char* sifa_instruction_set() { return cpu_kernels().instruction_set; }
