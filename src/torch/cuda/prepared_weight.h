// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/cuda/CUDAEvent.h>
#include <torch/torch.h>

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

#include "trit/format.h"

namespace trit::torch_layer::cuda {

/// What a gradient is multiplied as: each has a layout of the transposed weight.
enum class GradientOperand : std::uint8_t { float16, int8 };

/// A packed weight in the layout of the GPU's products (torch/cuda/layer.h, LayerWeight).
class PreparedWeight {
 public:
  /// Prepared on the current stream of the GPU of `codes`, which `stored` refers to.
  PreparedWeight(const torch::Tensor& codes, const TernaryView& stored);
  /// `weights` hold it once what is in the current stream has run. Unless it is `kept` for later calls, it is
  /// used on this stream alone: recording an event for others costs as much as a launch.
  PreparedWeight(torch::Tensor weights, bool kept);

  /// Makes the current stream wait, on the GPU, until the weight is ready, if another one prepares it.
  void use_on_current_stream(const torch::Tensor& codes, const torch::Tensor& scale) const;

  const std::uint8_t* data() const { return weights_.const_data_ptr<std::uint8_t>(); }

  /// The layout of gradient_input (trit/cuda_backward.h) or, for int8, of the product of gradients, for the
  /// current stream. Prepared at the first call, since not every forward has a backward that needs it, and
  /// again for another stream or inside a CUDA graph that captures the backward alone. Thread-safe.
  torch::Tensor transposed(const torch::Tensor& codes, std::int64_t in_features,
                           GradientOperand operand) const;

 private:
  torch::Tensor weights_;
  c10::cuda::CUDAStream stream_;
  at::cuda::CUDAEvent ready_;
  bool captured_;  // prepared inside a capture
  struct Transposed {
    torch::Tensor weights;
    std::optional<c10::cuda::CUDAStream> stream;  // that they were prepared on
  };
  mutable std::mutex mutex_;
  mutable std::array<Transposed, 2> transposed_;  // by GradientOperand
};

/// Packs a float weight [N, K] into codes [N, packed_row_bytes(K)] and scale (layer.h, scale_shape), and prepares
/// it, in one launch on the current stream, on which it is used.
std::shared_ptr<PreparedWeight> pack_into(const torch::Tensor& weight, bool per_row, std::int64_t group,
                                          const torch::Tensor& codes, const torch::Tensor& scale);

/// codes [N, packed_row_bytes(K)] in the layout of the operand, prepared on the current stream.
torch::Tensor prepare_transposed(const torch::Tensor& codes, std::int64_t in_features,
                                 GradientOperand operand);

}  // namespace trit::torch_layer::cuda
