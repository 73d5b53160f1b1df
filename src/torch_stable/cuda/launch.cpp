// SPDX-License-Identifier: MIT
#include "torch_stable/cuda/launch.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <map>
#include <mutex>

namespace trit::torch_stable::cuda {
namespace {

// The stable ABI's function for the current stream lies in libtorch_cuda.so, which a torch for CPUs lacks: to
// link it would keep this library from loading there. A tensor on a GPU means that it is loaded.
using CurrentStream = AOTITorchError (*)(std::int32_t device_index, void** stream);
CurrentStream find_current_stream() {
  void* const library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
  void* const found = library == nullptr ? nullptr : dlsym(library, "aoti_torch_get_current_cuda_stream");
  check(found != nullptr, "cuda: libtorch_cuda.so has no aoti_torch_get_current_cuda_stream: wanted torch ",
        "2.11 or newer with CUDA");
  return reinterpret_cast<CurrentStream>(found);
}

bool is_capturing(trit::cuda::Stream stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(stream, &status) == cudaSuccess && status != cudaStreamCaptureStatusNone;
}

}  // namespace

const trit::cuda::Device& device_of(const Tensor& tensor) {
  static std::mutex mutex;
  static std::map<std::int32_t, trit::cuda::Device> devices;  // whose nodes stay where they are
  const std::int32_t index = tensor.get_device_index();
  const std::lock_guard lock(mutex);
  const auto found = devices.find(index);
  return found != devices.end() ? found->second
                                : devices.emplace(index, trit::cuda::device_info(index)).first->second;
}

trit::cuda::Stream stream_of(const Tensor& tensor) {
  static const CurrentStream current_stream = find_current_stream();
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(current_stream(tensor.get_device_index(), &stream));
  return static_cast<trit::cuda::Stream>(stream);
}

optional<Tensor> workspace(const Tensor& like, std::size_t bytes) {
  if (bytes == 0) {
    return std::nullopt;
  }
  const std::array<std::int64_t, 1> sizes{static_cast<std::int64_t>(bytes)};
  const auto zeros = [&] { return torch::stable::new_zeros(like, sizes, ScalarType::Byte); };
  const trit::cuda::Stream stream = stream_of(like);
  if (is_capturing(stream)) {
    return zeros();
  }
  static std::mutex mutex;
  // Never destroyed: CUDA may be gone when static objects are.
  static auto& kept = *new std::map<std::pair<std::int32_t, trit::cuda::Stream>, Tensor>;
  const std::lock_guard lock(mutex);
  const std::pair key{like.get_device_index(), stream};
  const auto found = kept.find(key);
  if (found != kept.end() && found->second.numel() >= sizes[0]) {
    return found->second;
  }
  return kept.insert_or_assign(key, zeros()).first->second;
}

void check_device(const Tensor& tensor, const char* what, const Tensor& x) {
  const auto name = [](const Tensor& where) {
    return where.is_cuda() ? "cuda:" + std::to_string(where.get_device_index()) : std::string("the CPU");
  };
  check(tensor.is_cuda() && tensor.get_device_index() == x.get_device_index(), "bit_linear: ", what,
        " is on ", name(tensor), " and x on ", name(x), ", wanted both on one device");
}

}  // namespace trit::torch_stable::cuda
