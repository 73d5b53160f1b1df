// SPDX-License-Identifier: MIT
//
// What a layer on a GPU launches, and how its memory is laid out: the decisions that src/torch and
// src/torch_stable share. Raw pointers and a stream, free of torch, no allocation and no synchronisation.
#pragma once

#include <cstddef>
#include <cstdint>

#include "trit/cuda.h"
#include "trit/cuda_backward.h"
#include "trit/linear.h"

namespace trit::torch_layer::cuda {

using trit::cuda::Device;
using trit::cuda::Stream;

/// A weight as the products read it: prepare_weights, and group scales, prepared in float32, behind it.
struct LayerWeight {
  const std::uint8_t* prepared;  // aligned to 16
  std::int64_t out_features;
  std::int64_t in_features;
  const float* scale;  // beta [1] or [N]; not read with group scales
  ScaleGranularity granularity;
  std::int64_t group = 0;
};
std::size_t prepared_bytes(std::int64_t out_features, std::int64_t in_features, std::int64_t group);
/// From the stored form, whose scales are read where they are group scales.
void prepare(const TernaryView& stored, std::uint8_t* prepared, Stream stream);

/// absmean, ternarize_pack and prepare of a float weight in one launch.
struct PackLayer {
  const float* w;  // [N, K]
  std::int64_t out_features;
  std::int64_t in_features;
  bool per_row;
  std::int64_t group;
  float* scale;            // out [1], [N] or [N, groups_of(K, group)]
  std::uint8_t* codes;     // out [N, packed_row_bytes(K)]
  std::uint8_t* prepared;  // out, packing_bytes(...) bytes, aligned to 16: the prepared weight and scratch
  void* counter;           // 4 bytes of the stream's workspace
};
std::size_t packing_bytes(std::int64_t out_features, std::int64_t in_features, bool per_row,
                          std::int64_t group);
void pack(const Device& device, const PackLayer& args, Stream stream);

/// y [M, N] = epilogue(q · tᵀ). q_sum of `x` is not read. `workspace`: product_workspace_bytes(...), zero.
void product(const Device& device, const LayerWeight& weight, const QuantizedRows& x, const float* bias,
             DataType y_type, void* y, void* workspace, bool programmatic, Stream stream);

/// gradient_input's arguments but the transposed weight. Scales per row belong to what that product sums over:
/// they are a part of `grad` then.
trit::cuda::GradientInput gradient_input_arguments(const TernaryView& weight, const void* grad, DataType type,
                                                   std::int64_t tokens, void* grad_x);
/// Where gradient_input does not fit, tiles of the weight are multiplied by LibTorch: of 2^24 weights, since
/// 32 MiB of half precision stay in the L2 of a large GPU, and no float copy of a large weight exists.
inline constexpr std::int64_t kGradientTileWeights = std::int64_t{1} << 24;

/// The backward of RMSNorm: norm_backward where it fits, else rms_norm_backward (kernels.h). The parts in which the
/// weight's gradient is to be summed, of arguments that need no outputs yet:
std::int64_t norm_backward_parts(trit::cuda::NormBackward args);
void norm_backward(const Device& device, const trit::cuda::NormBackward& args, Stream stream);

}  // namespace trit::torch_layer::cuda
