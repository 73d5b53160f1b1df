// SPDX-License-Identifier: MIT
#include "torch/cuda/prepared_weight.h"

#include <c10/cuda/CUDAGuard.h>

#include "torch/arguments.h"
#include "torch/cuda/cuda.h"
#include "torch/cuda/launch_context.h"
#include "torch/cuda/layer.h"
#include "torch/layer.h"
#include "torch/packed_weight.h"

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

PreparedWeight::PreparedWeight(const torch::Tensor& codes, const TernaryView& stored)
    : PreparedWeight(
          [&] {
            const c10::cuda::CUDAGuard guard(codes.device());
            torch::Tensor weights =
                empty_bytes(prepared_bytes(stored.out_features, stored.in_features, stored.group), codes);
            prepare(stored, weights.mutable_data_ptr<std::uint8_t>(), stream_of(codes));
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

void launch_pack(const torch::Tensor& w, bool per_row, std::int64_t group, const torch::Tensor& codes,
                 const torch::Tensor& scale, const torch::Tensor& memory) {
  const torch::Tensor counter = workspace(w, group == 0 ? sizeof(std::int32_t) : 0);
  pack(cuda::device_of(w),
       {w.const_data_ptr<float>(), w.size(0), w.size(1), per_row, group, scale.mutable_data_ptr<float>(),
        codes.mutable_data_ptr<std::uint8_t>(), memory.mutable_data_ptr<std::uint8_t>(),
        counter.defined() ? counter.mutable_data_ptr() : nullptr},
       stream_of(w));
}

}  // namespace

std::shared_ptr<PreparedWeight> pack_into(const torch::Tensor& weight, bool per_row, std::int64_t group,
                                          const torch::Tensor& codes, const torch::Tensor& scale) {
  const torch::Tensor w = float_of(weight);
  torch::Tensor memory = empty_bytes(packing_bytes(w.size(0), w.size(1), per_row, group), w);
  launch_pack(w, per_row, group, codes, scale, memory);
  return std::make_shared<PreparedWeight>(std::move(memory), /*kept=*/false);
}

c10::intrusive_ptr<PackedWeight> pack(const torch::Tensor& weight, bool per_row, std::int64_t group,
                                      bool kept) {
  check_weight(weight);
  check_group(group);
  const torch::NoGradGuard no_grad;
  const c10::cuda::CUDAGuard guard(weight.device());
  const torch::Tensor w = float_of(weight);
  const std::int64_t in_features = w.size(1);
  // One allocation: what pack() writes, the codes, the scale.
  const auto round_up = [](std::size_t bytes) { return (bytes + 15) / 16 * 16; };
  const std::array<std::int64_t, 2> codes_shape{w.size(0), packed_row_bytes(in_features)};
  const std::vector<std::int64_t> scales = scale_shape(w.size(0), in_features, per_row, group);
  const std::size_t codes_at = round_up(packing_bytes(w.size(0), in_features, per_row, group));
  const std::size_t scale_at =
      codes_at + round_up(static_cast<std::size_t>(c10::multiply_integers(codes_shape)));
  torch::Tensor memory =
      empty_bytes(scale_at + static_cast<std::size_t>(c10::multiply_integers(scales)) * sizeof(float), w);
  torch::Tensor codes = part_of(memory, codes_at, codes_shape, torch::kByte);
  torch::Tensor scale = part_of(memory, scale_at, scales, torch::kFloat);
  launch_pack(w, per_row, group, codes, scale, memory);
  return c10::make_intrusive<PackedWeight>(std::move(codes), std::move(scale), in_features, group,
                                           std::make_shared<PreparedWeight>(std::move(memory), kept));
}

}  // namespace cuda

const cuda::PreparedWeight& PackedWeight::cuda() const {
  TORCH_CHECK(codes_.is_cuda(), "trit: the packed weight is on ", codes_.device(), ", wanted on a GPU");
  std::call_once(prepared_, [this] {
    if (cuda_ == nullptr) {
      cuda_ = std::make_shared<cuda::PreparedWeight>(codes_, view());
    }
  });
  cuda_->use_on_current_stream(codes_, scale_);
  return *cuda_;
}

}  // namespace trit::torch_layer
