// Registers the native kernels of `sifa::inter_frame_attention` with PyTorch. Their schemas, fake kernels and autograd
// are in ../functional.py. Only the stable ABI of libtorch is used, so one object serves every PyTorch from 2.10 on.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <tuple>

#include "attention.h"
#include "attention_cpu.h"

namespace {

using sifa::Dtype;
using sifa::Problem;
using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

Dtype dtype_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Half:
      return Dtype::f16;
    case ScalarType::BFloat16:
      return Dtype::bf16;
    case ScalarType::Float:
      return Dtype::f32;
    case ScalarType::Double:
      return Dtype::f64;
    default:
      STD_TORCH_CHECK(false, "x must be float16, bfloat16, float32 or float64");
  }
}

Problem problem_of(const Tensor& x, const Tensor& offset, int64_t kernel_size, int64_t dilation) {
  STD_TORCH_CHECK(kernel_size >= 1 && dilation >= 1, "kernel_size and dilation must be at least 1");
  STD_TORCH_CHECK(x.dim() == 5 && offset.dim() == 5, "x and offset must have 5 dimensions");
  const Problem p{x.size(0), x.size(1), x.size(2), x.size(3), x.size(4), kernel_size, dilation, dtype_of(x)};
  STD_TORCH_CHECK(p.channels >= 1 && p.steps >= 1 && p.pixels() >= 1, "x may be empty in N only");
  STD_TORCH_CHECK(offset.size(0) == p.batch && offset.size(1) == 2 * p.taps() && offset.size(2) == p.steps &&
                      offset.size(3) == p.height && offset.size(4) == p.width,
                  "offset must be (N, 2*K*K, T, H, W)");
  STD_TORCH_CHECK(x.device() == offset.device(), "x and offset must be on one device");
  return p;
}

Tensor channels_last(const Tensor& x) { return torch::stable::contiguous(x, MemoryFormat::ChannelsLast3d); }

bool is_channels_last(const Tensor& x) {
  int64_t expected = 1;
  for (const int dim : {1, 4, 3, 2, 0}) {
    if (x.size(dim) != 1 && x.stride(dim) != expected) return false;
    expected *= x.size(dim);
  }
  return true;
}

Tensor upstream_of(const Tensor& grad, const Tensor& x) {
  STD_TORCH_CHECK(grad.sizes().equals(x.sizes()) && grad.scalar_type() == x.scalar_type() &&
                      grad.device() == x.device(),
                  "grad must be like x");
  return channels_last(grad);
}

ScalarType accumulate_type(const Problem& p) { return p.dtype == Dtype::f64 ? ScalarType::Double : ScalarType::Float; }

Tensor for_kernel(const Tensor& offset, const Problem& p) {
  return channels_last(torch::stable::to(offset, accumulate_type(p)));
}

// A tensor like `model`, and channels-last memory of `dtype` for a kernel to fill: the same memory where that is possible.
struct Result {
  Tensor tensor, memory;

  Result(const Tensor& model, ScalarType dtype) : tensor(torch::stable::empty_like(model)), memory(tensor) {
    if (tensor.scalar_type() != dtype || !is_channels_last(tensor)) {
      memory = torch::stable::empty(tensor.sizes(), dtype, std::nullopt, tensor.device(), std::nullopt,
                                    MemoryFormat::ChannelsLast3d);
    }
  }
  Tensor finish() {
    if (memory.get() != tensor.get()) torch::stable::copy_(tensor, memory);
    return tensor;
  }
};

const sifa::CpuKernels& cpu_kernels(Dtype dtype) {
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
  if (level == 2) return sifa::avx512::kernels(dtype);
  if (level == 1) return sifa::avx2::kernels(dtype);
#endif
  return sifa::baseline::kernels(dtype);
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
  while (channels >= 2 * kLeast && (channels * p.pixels() * size > kCache ||
                                    p.batch * p.steps * (p.channels / channels) < 2 * threads)) {
    channels = (channels / 2 + kLeast - 1) / kLeast * kLeast;
  }
  return channels;
}

std::tuple<Tensor, Tensor> backward_cpu(const Tensor& grad, const Tensor& x, const Tensor& offset,
                                        int64_t kernel_size, int64_t dilation, bool /* always deterministic */) {
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
      const sifa::GradientBlock block{frame / p.steps, frame % p.steps, first, std::min(width, p.channels - first)};
      kernels.gradient(p, upstream.const_data_ptr(), input.const_data_ptr(), offsets.const_data_ptr(),
                       coefficients.const_data_ptr(), grad_x.memory.mutable_data_ptr(), block, scratch.memory);
    }
  });
  return {grad_x.finish(), grad_offset.finish()};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sifa, CPU, m) {
  m.impl("inter_frame_attention", TORCH_BOX(&forward_cpu));
  m.impl("inter_frame_attention_backward", TORCH_BOX(&backward_cpu));
}

extern "C" __attribute__((visibility("default"))) const char* sifa_instruction_set() {
  return cpu_kernels(Dtype::f32).instruction_set;
}

#ifdef SIFA_WITH_CUDA

// Weak, so that an object with CUDA kernels also loads into a PyTorch without CUDA.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream);

namespace {

struct OnDevice {
  explicit OnDevice(const Tensor& x) : guard(x.get_device_index()) {
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream, "this PyTorch was built without CUDA");
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  }
  torch::stable::accelerator::DeviceGuard guard;
  void* stream = nullptr;
};

void check_launch(int error) { STD_TORCH_CHECK(error == 0, "CUDA error: ", sifa_cuda_error_string(error)); }

Tensor forward_cuda(const Tensor& x, const Tensor& offset, int64_t kernel_size, int64_t dilation) {
  const Problem p = problem_of(x, offset, kernel_size, dilation);
  const OnDevice device(x);
  const Tensor input = channels_last(x), offsets = for_kernel(offset, p);
  Result out(x, x.scalar_type());
  check_launch(sifa_cuda_forward(input.const_data_ptr(), offsets.const_data_ptr(), out.memory.mutable_data_ptr(), p,
                                 device.stream));
  return out.finish();
}

std::tuple<Tensor, Tensor> backward_cuda(const Tensor& grad, const Tensor& x, const Tensor& offset,
                                         int64_t kernel_size, int64_t dilation, bool deterministic) {
  const Problem p = problem_of(x, offset, kernel_size, dilation);
  const OnDevice device(x);
  const Tensor upstream = upstream_of(grad, x), input = channels_last(x), offsets = for_kernel(offset, p);
  Result grad_x(x, x.scalar_type()), grad_offset(offset, accumulate_type(p));
  const Tensor coefficients = torch::stable::empty_like(offsets);
  const Tensor sum = x.scalar_type() == accumulate_type(p)
                         ? grad_x.memory
                         : torch::stable::empty(x.sizes(), accumulate_type(p), std::nullopt, x.device(), std::nullopt,
                                                MemoryFormat::ChannelsLast3d);
  check_launch(sifa_cuda_backward(upstream.const_data_ptr(), input.const_data_ptr(), offsets.const_data_ptr(),
                                  grad_x.memory.mutable_data_ptr(), grad_offset.memory.mutable_data_ptr(),
                                  sum.mutable_data_ptr(), coefficients.mutable_data_ptr(), p, deterministic,
                                  device.stream));
  return {grad_x.finish(), grad_offset.finish()};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sifa, CUDA, m) {
  m.impl("inter_frame_attention", TORCH_BOX(&forward_cuda));
  m.impl("inter_frame_attention_backward", TORCH_BOX(&backward_cuda));
}

#endif  // SIFA_WITH_CUDA
