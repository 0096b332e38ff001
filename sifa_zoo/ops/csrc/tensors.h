// From tensors to what the kernels take: checks, sizes, and channels-last memory. Only the stable ABI of libtorch is
// used, so one object serves every PyTorch from 2.10 on.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <tuple>

#include "attention.h"

namespace sifa {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Dtype dtype_of(const Tensor& x) {
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

inline Problem problem_of(const Tensor& x, const Tensor& offset, int64_t kernel_size, int64_t dilation) {
  STD_TORCH_CHECK(kernel_size >= 1 && dilation >= 1, "kernel_size and dilation must be at least 1");
  STD_TORCH_CHECK(x.dim() == 5 && offset.dim() == 5, "x and offset must have 5 dimensions");
  const Problem p{x.size(0), x.size(1), x.size(2), x.size(3), x.size(4), kernel_size, dilation, dtype_of(x)};
  STD_TORCH_CHECK(p.channels >= 1 && p.steps >= 1 && p.pixels() >= 1, "x may be empty in N only");
  STD_TORCH_CHECK(p.pixels() < (int64_t{1} << 31) - p.width, "H*W must be below 2^31");
  STD_TORCH_CHECK(offset.size(0) == p.batch && offset.size(1) == 2 * p.taps() && offset.size(2) == p.steps &&
                      offset.size(3) == p.height && offset.size(4) == p.width,
                  "offset must be (N, 2*K*K, T, H, W)");
  STD_TORCH_CHECK(x.device() == offset.device(), "x and offset must be on one device");
  return p;
}

inline Tensor channels_last(const Tensor& x) { return torch::stable::contiguous(x, MemoryFormat::ChannelsLast3d); }

inline bool is_channels_last(const Tensor& x) {
  int64_t expected = 1;
  for (const int dim : {1, 4, 3, 2, 0}) {
    if (x.size(dim) != 1 && x.stride(dim) != expected) return false;
    expected *= x.size(dim);
  }
  return true;
}

inline Tensor upstream_of(const Tensor& grad, const Tensor& x) {
  STD_TORCH_CHECK(
      grad.sizes().equals(x.sizes()) && grad.scalar_type() == x.scalar_type() && grad.device() == x.device(),
      "grad must be like x");
  return channels_last(grad);
}

inline ScalarType accumulate_type(const Problem& p) {
  return p.dtype == Dtype::f64 ? ScalarType::Double : ScalarType::Float;
}

inline Tensor for_kernel(const Tensor& offset, const Problem& p) {
  return channels_last(torch::stable::to(offset, accumulate_type(p)));
}

// A tensor like `model`, and channels-last memory of `dtype` for a kernel to fill: the same memory where that is
// possible.
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

}  // namespace sifa
