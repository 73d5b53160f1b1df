// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/cuda/CUDAEvent.h>
#include <torch/torch.h>

#include <optional>

namespace trit::torch_layer::cuda {

/// A packed weight in the layout of the GPU's products (trit/cuda.h, prepare_weights).
class PreparedWeight {
 public:
  /// Prepared on the current stream.
  PreparedWeight(const torch::Tensor& codes, std::int64_t in_features);
  /// `weights` hold it once what is in the current stream has run. Unless it is `kept` for later calls, it is
  /// used on this stream alone: recording an event for others costs as much as a launch.
  PreparedWeight(torch::Tensor weights, bool kept);

  /// Makes the current stream wait, on the GPU, until the weight is ready, if another one prepares it.
  void use_on_current_stream(const torch::Tensor& codes, const torch::Tensor& scale) const;

  const std::uint8_t* data() const { return weights_.const_data_ptr<std::uint8_t>(); }

 private:
  torch::Tensor weights_;
  c10::cuda::CUDAStream stream_;
  at::cuda::CUDAEvent ready_;
};

}  // namespace trit::torch_layer::cuda
