// SPDX-License-Identifier: MIT
#include "torch/cuda/launch_context.h"

#include <ATen/cuda/EmptyTensor.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAStream.h>

#include <array>
#include <map>
#include <mutex>

#include "torch/cuda/cuda.h"

namespace trit::torch_layer::cuda {

bool is_capturing() {
  return c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None;
}

const trit::cuda::Device& device_of(const torch::Tensor& tensor) {
  static std::array<std::once_flag, C10_COMPILE_TIME_MAX_GPUS> asked;
  static std::array<trit::cuda::Device, C10_COMPILE_TIME_MAX_GPUS> devices;
  const auto index = static_cast<unsigned char>(tensor.get_device());  // not -1: the tensor is on a GPU
  std::call_once(asked.at(index), [&] { devices.at(index) = trit::cuda::device_info(index); });
  return devices.at(index);
}

trit::cuda::Stream stream_of(const torch::Tensor& tensor) {
  return c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(tensor.get_device())).stream();
}

torch::Tensor empty(at::IntArrayRef sizes, torch::ScalarType type, const torch::Tensor& like) {
  return torch::Tensor(at::detail::empty_cuda(sizes, type, like.device(), std::nullopt));
}

torch::Tensor part_of(const torch::Tensor& base, std::size_t bytes, at::IntArrayRef sizes,
                      torch::ScalarType type) {
  auto part = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(base.storage()), base.key_set(),
                                                       c10::scalarTypeToTypeMeta(type));
  auto* const impl = part.unsafeGetTensorImpl();
  impl->set_storage_offset(static_cast<std::int64_t>(bytes / c10::elementSize(type)));
  impl->set_sizes_contiguous(sizes);
  return part;
}

torch::Tensor workspace(const torch::Tensor& like, std::size_t bytes) {
  if (bytes == 0) {
    return {};
  }
  const auto size = static_cast<std::int64_t>(bytes);
  const auto zeros = [&] { return at::zeros({size}, like.options().dtype(torch::kByte)); };
  if (is_capturing()) {
    return zeros();
  }
  static std::mutex mutex;
  // Never destroyed: CUDA may be gone when static objects are.
  static auto& kept = *new std::map<std::pair<int, trit::cuda::Stream>, torch::Tensor>;
  const std::lock_guard lock(mutex);
  torch::Tensor& own = kept[{like.get_device(), stream_of(like)}];
  if (!own.defined() || own.numel() < size) {
    own = zeros();
  }
  return own;
}

void check_device(const torch::Tensor& tensor, const char* what, const torch::Tensor& x) {
  TORCH_CHECK(tensor.device() == x.device(), "trit: ", what, " is on ", tensor.device(), " and x on ",
              x.device(), ", wanted both on one device");
}

}  // namespace trit::torch_layer::cuda
