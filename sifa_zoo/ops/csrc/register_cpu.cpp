// Registers the CPU kernels with PyTorch. Schemas, fake kernels and autograd are in ../functional.py.
#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "attention_cpu.h"
#include "tensors.h"

namespace sifa {
namespace {

const CpuKernels& cpu_kernels(Dtype dtype) {
#if defined(__x86_64__)
  static const int level = [] {
    const char* wanted = std::getenv("ATEN_CPU_CAPABILITY");  // the variable that PyTorch's own kernels obey
    const std::string_view limit = wanted ? wanted : "";
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (limit == "default" || !has_avx2) return 0;
    return limit == "avx2" || !has_avx512 ? 1 : 2;
  }();
  if (level == 2) return avx512::kernels(dtype);
  if (level == 1) return avx2::kernels(dtype);
#endif
  return baseline::kernels(dtype);
}

struct Scratch {
  explicit Scratch(int64_t bytes) : memory(static_cast<char*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64))) {
    STD_TORCH_CHECK(memory, "out of memory");
  }
  ~Scratch() { std::free(memory); }
  Scratch(const Scratch&) = delete;
  char* memory;
};

// Calls f(begin, end) from several threads for the locations of all pairs of frames.
template <class F>
void each_range(const Problem& p, const F& f) {
  const int64_t grain = std::max<int64_t>(1, 16384 / p.channels);  // some 20 microseconds of work
  torch::stable::parallel_for(0, p.batch * (p.steps - 1) * p.pixels(), grain, f);
}

Tensor forward_cpu(const Tensor& x, const Tensor& offset, int64_t kernel_size, int64_t dilation) {
  const Problem p = problem_of(x, offset, kernel_size, dilation);
  const Tensor input = channels_last(x), offsets = for_kernel(offset, p);
  Result out(x, x.scalar_type());
  if (p.steps == 1) return torch::stable::zero_(out.tensor);
  const auto& kernels = cpu_kernels(p.dtype);
  each_range(p, [&](int64_t begin, int64_t end) {
    Scratch scratch(kernels.scratch_bytes(p, 0));
    kernels.forward(p, input.const_data_ptr(), offsets.const_data_ptr(), out.memory.mutable_data_ptr(), begin, end,
                    scratch.memory);
  });
  return out.finish();
}

// Channels that one thread takes of a frame: all of them, unless threads would be idle or their sums leave the cache.
int64_t block_channels(const Problem& p) {
  constexpr int64_t kLeast = 64, kCache = 1 << 20;
  const int64_t threads = torch::stable::get_num_threads(), size = p.dtype == Dtype::f64 ? 8 : 4;
  int64_t channels = p.channels;
  while (channels >= 2 * kLeast &&
         (channels * p.pixels() * size > kCache || p.batch * p.steps * (p.channels / channels) < 2 * threads)) {
    channels = (channels / 2 + kLeast - 1) / kLeast * kLeast;
  }
  return channels;
}

std::tuple<Tensor, Tensor> backward_cpu(const Tensor& grad, const Tensor& x, const Tensor& offset, int64_t kernel_size,
                                        int64_t dilation, bool /* always deterministic */) {
  const Problem p = problem_of(x, offset, kernel_size, dilation);
  const Tensor upstream = upstream_of(grad, x), input = channels_last(x), offsets = for_kernel(offset, p);
  Result grad_x(x, x.scalar_type()), grad_offset(offset, accumulate_type(p));
  if (p.steps == 1) return {torch::stable::zero_(grad_x.tensor), torch::stable::zero_(grad_offset.tensor)};
  const Tensor coefficients = torch::stable::empty_like(offsets);
  const auto& kernels = cpu_kernels(p.dtype);
  each_range(p, [&](int64_t begin, int64_t end) {
    Scratch scratch(kernels.scratch_bytes(p, 0));
    kernels.coefficients(p, upstream.const_data_ptr(), input.const_data_ptr(), offsets.const_data_ptr(),
                         grad_offset.memory.mutable_data_ptr(), coefficients.mutable_data_ptr(), begin, end,
                         scratch.memory);
  });
  const int64_t width = block_channels(p), blocks = (p.channels + width - 1) / width;
  torch::stable::parallel_for(0, blocks * p.batch * p.steps, 1, [&](int64_t begin, int64_t end) {
    Scratch scratch(kernels.scratch_bytes(p, width));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i / (p.batch * p.steps) * width, frame = i % (p.batch * p.steps);
      const GradientBlock block{frame / p.steps, frame % p.steps, first, std::min(width, p.channels - first)};
      kernels.gradient(p, upstream.const_data_ptr(), input.const_data_ptr(), offsets.const_data_ptr(),
                       coefficients.const_data_ptr(), grad_x.memory.mutable_data_ptr(), block, scratch.memory);
    }
  });
  return {grad_x.finish(), grad_offset.finish()};
}

}  // namespace
}  // namespace sifa

STABLE_TORCH_LIBRARY_IMPL(sifa, CPU, m) {
  m.impl("inter_frame_attention", TORCH_BOX(&sifa::forward_cpu));
  m.impl("inter_frame_attention_backward", TORCH_BOX(&sifa::backward_cpu));
}

extern "C" __attribute__((visibility("default"))) const char* sifa_instruction_set() {
  return sifa::cpu_kernels(sifa::Dtype::f32).instruction_set;
}
