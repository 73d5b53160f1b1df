// SPDX-License-Identifier: MIT
//
// The products of trit/cuda.h for a benchmark in Python (bench_humming.py, ctypes): raw pointers and a
// stream. A function returns 0, or -1 and leaves the message for last_error.
#include <string>

#include "trit/cuda.h"

namespace {

std::string& message() {
  thread_local std::string text;
  return text;
}

template <typename Call>
int guarded(const Call& call) {
  try {
    call();
    return 0;
  } catch (const std::exception& error) {
    message() = error.what();
    return -1;
  }
}

const trit::cuda::Device& device() {
  static const trit::cuda::Device found = trit::cuda::device_info(0);
  return found;
}

}  // namespace

extern "C" {

const char* trit_last_error() { return message().c_str(); }

std::size_t trit_weight_bytes(std::int64_t out_features, std::int64_t in_features) {
  return trit::cuda::weight_bytes(out_features, in_features);
}

/// codes [N, ceil(K / 4)] on the GPU to `weights`.
int trit_prepare_weights(const std::uint8_t* codes, std::int64_t out_features, std::int64_t in_features,
                         std::uint8_t* weights, trit::cuda::Stream stream) {
  return guarded([&] { trit::cuda::prepare_weights(codes, out_features, in_features, weights, stream); });
}

/// Of float16 group scales.
std::size_t trit_group_scale_bytes(std::int64_t out_features, std::int64_t in_features, std::int64_t group) {
  return trit::cuda::group_scale_bytes(out_features, in_features, group, trit::DataType::float16);
}

/// scale [N, ceil(K / group)] fp32 on the GPU to `prepared`, as float16.
int trit_prepare_group_scales(const float* scale, std::int64_t out_features, std::int64_t in_features,
                              std::int64_t group, void* prepared, trit::cuda::Stream stream) {
  return guarded([&] {
    trit::cuda::prepare_group_scales(scale, out_features, in_features, group, trit::DataType::float16,
                                     prepared, stream);
  });
}

int trit_workspace_bytes(std::int64_t tokens, std::int64_t out_features, std::int64_t in_features,
                         std::int64_t group, std::size_t* bytes) {
  return guarded([&] {
    *bytes = trit::cuda::product_workspace_bytes(device(), tokens, out_features, in_features, group);
  });
}

/// y [M, N] bfloat16 = q [M, K] t^T, times token_scale [M] and weight_scale: [1], or with group > 0 what
/// trit_prepare_group_scales has made.
int trit_product(const std::uint8_t* weights, std::int64_t out_features, std::int64_t in_features,
                 const std::int8_t* q, const float* token_scale, std::int64_t tokens,
                 const void* weight_scale, std::int64_t group, void* y, void* workspace, int programmatic,
                 trit::cuda::Stream stream) {
  return guarded([&] {
    trit::cuda::product(
        device(),
        {.weights = weights,
         .out_features = out_features,
         .in_features = in_features,
         .q = q,
         .token_scale = token_scale,
         .tokens = tokens,
         .weight_scale = static_cast<const float*>(weight_scale),
         .granularity = group > 0 ? trit::ScaleGranularity::group : trit::ScaleGranularity::tensor,
         .y_type = trit::DataType::bfloat16,
         .y = y,
         .workspace = workspace,
         .programmatic = programmatic != 0,
         .group = group,
         .group_scale = weight_scale,
         .group_scale_type = trit::DataType::float16},
        stream);
  });
}

}  // extern "C"
