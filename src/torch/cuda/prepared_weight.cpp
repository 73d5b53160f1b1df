// SPDX-License-Identifier: MIT
#include "torch/cuda/prepared_weight.h"

#include <c10/cuda/CUDAGuard.h>

#include "torch/arguments.h"
#include "torch/cuda/cuda.h"
#include "torch/cuda/launch_context.h"
#include "torch/packed_weight.h"
#include "trit/cuda_backward.h"

namespace trit::torch_layer {

namespace cuda {
namespace {

torch::Tensor empty_bytes(std::size_t bytes, const torch::Tensor& like) {
  return empty({static_cast<std::int64_t>(bytes)}, torch::kByte, like);
}

}  // namespace

PreparedWeight::PreparedWeight(torch::Tensor weights, bool kept)
    : weights_(std::move(weights)),
      stream_(c10::cuda::getCurrentCUDAStream(weights_.device().index())),
      captured_(is_capturing()) {
  // Inside a capture the graph orders its streams itself.
  if (kept && !captured_) {
    ready_.record(stream_);
  }
}

PreparedWeight::PreparedWeight(const torch::Tensor& codes, std::int64_t in_features)
    : PreparedWeight(
          [&] {
            const c10::cuda::CUDAGuard guard(codes.device());
            torch::Tensor weights = empty_bytes(trit::cuda::weight_bytes(codes.size(0), in_features), codes);
            trit::cuda::prepare_weights(codes.const_data_ptr<std::uint8_t>(), codes.size(0), in_features,
                                        weights.mutable_data_ptr<std::uint8_t>(), stream_of(codes));
            return weights;
          }(),
          /*kept=*/true) {}

void PreparedWeight::use_on_current_stream(const torch::Tensor& codes, const torch::Tensor& scale) const {
  const auto current = c10::cuda::getCurrentCUDAStream(weights_.device().index());
  // A capture must not wait for work outside of it; the caller synchronises before it begins one.
  if (current == stream_ || is_capturing()) {
    return;
  }
  if (ready_.isCreated()) {
    C10_CUDA_CHECK(cudaStreamWaitEvent(current.stream(), ready_.event(), 0));
  }
  // The allocator must not reuse the memory while this stream may read it.
  for (const torch::Tensor& tensor : {weights_, codes, scale}) {
    tensor.record_stream(current);
  }
}

torch::Tensor prepare_transposed(const torch::Tensor& codes, std::int64_t in_features,
                                 GradientOperand operand) {
  const c10::cuda::CUDAGuard guard(codes.device());
  const std::int64_t out_features = codes.size(0);
  const bool int8 = operand == GradientOperand::int8;
  torch::Tensor weights = empty_bytes(int8 ? trit::cuda::weight_bytes(in_features, out_features)
                                           : trit::cuda::transposed_weight_bytes(out_features, in_features),
                                      codes);
  const auto prepare = int8 ? trit::cuda::prepare_transposed_int8 : trit::cuda::prepare_transposed;
  prepare(codes.const_data_ptr<std::uint8_t>(), out_features, in_features,
          weights.mutable_data_ptr<std::uint8_t>(), stream_of(codes));
  return weights;
}

torch::Tensor PreparedWeight::transposed(const torch::Tensor& codes, std::int64_t in_features,
                                         GradientOperand operand) const {
  // Memory of a capture holds the weights at its replays only.
  if (is_capturing() != captured_) {
    return prepare_transposed(codes, in_features, operand);
  }
  const auto current = c10::cuda::getCurrentCUDAStream(codes.device().index());
  const std::lock_guard lock(mutex_);
  Transposed& kept = transposed_.at(static_cast<std::size_t>(operand));
  if (kept.stream != current) {
    kept = {prepare_transposed(codes, in_features, operand), current};
  }
  return kept.weights;
}

namespace {

// `row_sums` [N], with one scale for the tensor.
void launch_pack(const torch::Tensor& w, bool per_row, const torch::Tensor& codes, const torch::Tensor& scale,
                 std::uint8_t* weights, float* row_sums) {
  const torch::Tensor counter = workspace(w, sizeof(std::int32_t));
  trit::cuda::pack_weights(cuda::device_of(w),
                           {.w = w.const_data_ptr<float>(),
                            .out_features = w.size(0),
                            .in_features = w.size(1),
                            .granularity = per_row ? ScaleGranularity::row : ScaleGranularity::tensor,
                            .scale = scale.mutable_data_ptr<float>(),
                            .codes = codes.mutable_data_ptr<std::uint8_t>(),
                            .weights = weights,
                            .row_sums = per_row ? nullptr : row_sums,
                            .counter = static_cast<std::int32_t*>(counter.mutable_data_ptr())},
                           stream_of(w));
}

}  // namespace

std::shared_ptr<PreparedWeight> pack_into(const torch::Tensor& weight, bool per_row,
                                          const torch::Tensor& codes, const torch::Tensor& scale) {
  const torch::Tensor w = float_of(weight);
  const std::size_t bytes = trit::cuda::weight_bytes(w.size(0), w.size(1));  // a multiple of 2048
  torch::Tensor weights = empty_bytes(bytes + static_cast<std::size_t>(w.size(0)) * sizeof(float), w);
  auto* const memory = weights.mutable_data_ptr<std::uint8_t>();
  launch_pack(w, per_row, codes, scale, memory, reinterpret_cast<float*>(memory + bytes));
  return std::make_shared<PreparedWeight>(std::move(weights), /*kept=*/false);
}

c10::intrusive_ptr<PackedWeight> pack(const torch::Tensor& weight, bool per_row, bool kept) {
  check_weight(weight);
  const torch::NoGradGuard no_grad;
  const c10::cuda::CUDAGuard guard(weight.device());
  const torch::Tensor w = float_of(weight);
  const std::int64_t out_features = w.size(0);
  const std::int64_t in_features = w.size(1);
  // One allocation: the weights (a multiple of 2048 bytes), the codes, the scale, the rows' sums.
  const auto round_up = [](std::size_t bytes) { return (bytes + 15) / 16 * 16; };
  const std::int64_t row_bytes = packed_row_bytes(in_features);
  const std::int64_t scales = per_row ? out_features : 1;
  const std::size_t codes_at = trit::cuda::weight_bytes(out_features, in_features);
  const std::size_t scale_at = codes_at + round_up(static_cast<std::size_t>(out_features * row_bytes));
  const std::size_t sums_at = scale_at + static_cast<std::size_t>(scales) * sizeof(float);
  const std::size_t sums_bytes = per_row ? 0 : static_cast<std::size_t>(out_features) * sizeof(float);
  torch::Tensor weights = empty_bytes(sums_at + sums_bytes, w);
  torch::Tensor codes = part_of(weights, codes_at, {out_features, row_bytes}, torch::kByte);
  torch::Tensor scale = part_of(weights, scale_at, {scales}, torch::kFloat);
  auto* const memory = weights.mutable_data_ptr<std::uint8_t>();
  launch_pack(w, per_row, codes, scale, memory, reinterpret_cast<float*>(memory + sums_at));
  return c10::make_intrusive<PackedWeight>(std::move(codes), std::move(scale), in_features,
                                           std::make_shared<PreparedWeight>(std::move(weights), kept));
}

}  // namespace cuda

const cuda::PreparedWeight& PackedWeight::cuda() const {
  TORCH_CHECK(codes_.is_cuda(), "trit: the packed weight is on ", codes_.device(), ", wanted on a GPU");
  std::call_once(prepared_, [this] {
    if (cuda_ == nullptr) {
      cuda_ = std::make_shared<cuda::PreparedWeight>(codes_, in_features_);
    }
  });
  cuda_->use_on_current_stream(codes_, scale_);
  return *cuda_;
}

}  // namespace trit::torch_layer
