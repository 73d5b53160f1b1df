// SPDX-License-Identifier: MIT
#include "torch_stable/cuda/launch.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <map>
#include <mutex>

namespace trit::torch_stable::cuda {
namespace {

// The stable ABI's functions for GPUs lie in libtorch_cuda.so, which a torch for CPUs lacks: to link it would keep
// this library from loading there. A tensor on a GPU means that it is loaded.
void* find(const char* name) {
  void* const library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
  return library == nullptr ? nullptr : dlsym(library, name);
}

using CurrentStream = AOTITorchError (*)(std::int32_t device_index, void** stream);
CurrentStream find_current_stream() {
  void* const found = find("aoti_torch_get_current_cuda_stream");
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

Workspace workspace(const Tensor& like, std::size_t bytes) {
  if (bytes == 0) {
    return {};
  }
  const trit::cuda::Stream stream = stream_of(like);
  if (is_capturing(stream)) {
    const std::array<std::int64_t, 1> sizes{static_cast<std::int64_t>(bytes)};
    const Tensor zeros = torch::stable::new_zeros(like, sizes, ScalarType::Byte);
    return {zeros.mutable_data_ptr(), zeros};
  }
  struct Kept {
    void* data = nullptr;
    std::size_t bytes = 0;
  };
  static std::mutex mutex;
  static std::map<std::pair<std::int32_t, trit::cuda::Stream>, Kept> kept;
  const std::lock_guard lock(mutex);
  Kept& own = kept[{like.get_device_index(), stream}];
  if (own.bytes < bytes) {
    void* data = nullptr;
    const cudaError_t error = cudaMalloc(&data, bytes);
    check(error == cudaSuccess, "cuda: no memory for a workspace of ", bytes,
          " bytes: ", cudaGetErrorString(error));
    cudaMemsetAsync(data, 0, bytes, stream);
    cudaFree(own.data);  // waits for the launches that use it
    own = {data, bytes};
  }
  return {own.data, std::nullopt};
}

// Without the dispatcher where this torch has such functions: it costs the host 2 us.
void multiply(const Tensor& a, const Tensor& b, const Tensor& to) {
  using Multiply = AOTITorchError (*)(AtenTensorHandle out, AtenTensorHandle self, AtenTensorHandle mat2);
  using MultiplyTo = AOTITorchError (*)(AtenTensorHandle out, AtenTensorHandle self, AtenTensorHandle mat2,
                                        std::int32_t out_dtype);
  static const auto in_type = reinterpret_cast<Multiply>(find("aoti_torch_cuda_mm_out"));
  static const auto to_float = reinterpret_cast<MultiplyTo>(find("aoti_torch_cuda_mm_dtype_out"));
  if (a.scalar_type() != to.scalar_type()) {
    if (to_float == nullptr) {
      call("aten::mm", "dtype_out", a, b, to.scalar_type(), to);
      return;
    }
    TORCH_ERROR_CODE_CHECK(to_float(to.get(), a.get(), b.get(), aoti_torch_dtype_float32()));
  } else if (in_type == nullptr) {
    call("aten::mm", "out", a, b, to);
  } else {
    TORCH_ERROR_CODE_CHECK(in_type(to.get(), a.get(), b.get()));
  }
}

void check_device(const Tensor& tensor, const char* what, const Tensor& x) {
  if (tensor.is_cuda() && tensor.get_device_index() == x.get_device_index()) {
    return;
  }
  const auto name = [](const Tensor& where) {
    return where.is_cuda() ? "cuda:" + std::to_string(where.get_device_index()) : std::string("the CPU");
  };
  check(false, "bit_linear: ", what, " is on ", name(tensor), " and x on ", name(x),
        ", wanted both on one device");
}

}  // namespace trit::torch_stable::cuda
