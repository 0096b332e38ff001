// Registers the CUDA kernels with PyTorch. Schemas, fake kernels and autograd are in ../functional.py.
#include "tensors.h"

extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream);

namespace sifa {
namespace {

struct OnDevice {
  explicit OnDevice(const Tensor& x) : guard(x.get_device_index()) {
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

std::tuple<Tensor, Tensor> backward_cuda(const Tensor& grad, const Tensor& x, const Tensor& offset, int64_t kernel_size,
                                         int64_t dilation, bool deterministic) {
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
}  // namespace sifa

STABLE_TORCH_LIBRARY_IMPL(sifa, CUDA, m) {
  m.impl("inter_frame_attention", TORCH_BOX(&sifa::forward_cuda));
  m.impl("inter_frame_attention_backward", TORCH_BOX(&sifa::backward_cuda));
}
