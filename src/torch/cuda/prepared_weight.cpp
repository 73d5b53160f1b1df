// SPDX-License-Identifier: MIT
#include "torch/cuda/prepared_weight.h"

#include <c10/cuda/CUDAGuard.h>

#include "torch/arguments.h"
#include "torch/cuda/cuda.h"
#include "torch/cuda/launch_context.h"
#include "torch/packed_weight.h"

namespace trit::torch_layer {

namespace cuda {

PreparedWeight::PreparedWeight(const torch::Tensor& codes, std::int64_t in_features)
    : stream_(c10::cuda::getCurrentCUDAStream(codes.device().index())) {
  const c10::cuda::CUDAGuard guard(codes.device());
  const auto bytes = static_cast<std::int64_t>(trit::cuda::weight_bytes(codes.size(0), in_features));
  weights_ = at::empty({bytes}, codes.options());
  trit::cuda::prepare_weights(codes.const_data_ptr<std::uint8_t>(), codes.size(0), in_features,
                              weights_.mutable_data_ptr<std::uint8_t>(), stream_.stream());
  // Inside a capture the graph orders its streams itself.
  if (!is_capturing()) {
    ready_.record(stream_);
  }
}

void PreparedWeight::use_on_current_stream(const torch::Tensor& codes, const torch::Tensor& scale) const {
  const auto current = c10::cuda::getCurrentCUDAStream(weights_.device().index());
  // A capture may not wait for what is outside of it; whoever begins one synchronises first.
  if (current == stream_ || is_capturing()) {
    return;
  }
  if (ready_.isCreated()) {
    C10_CUDA_CHECK(cudaStreamWaitEvent(current.stream(), ready_.event(), 0));
  }
  // The allocator must not give the memory away while this stream may read it.
  for (const torch::Tensor& tensor : {weights_, codes, scale}) {
    tensor.record_stream(current);
  }
}

}  // namespace cuda

const cuda::PreparedWeight& PackedWeight::cuda() const {
  TORCH_CHECK(codes_.is_cuda(), "trit: the packed weight is on ", codes_.device(), ", wanted on a GPU");
  std::call_once(prepared_, [this] { cuda_ = std::make_shared<cuda::PreparedWeight>(codes_, in_features_); });
  cuda_->use_on_current_stream(codes_, scale_);
  return *cuda_;
}

}  // namespace trit::torch_layer
