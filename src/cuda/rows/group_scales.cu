// SPDX-License-Identifier: MIT
//
// Group scales to the order that the products read (common/group_scales.cuh).
#include "cuda/common/group_scales.cuh"

#include "cuda/common/checks.h"
#include "cuda/common/launch.cuh"

namespace trit::cuda {
namespace {

constexpr int kThreads = 256;

/// A thread per scale of the prepared order.
__global__ __launch_bounds__(kThreads) void group_scales_kernel(const float* scale, std::int64_t out_features,
                                                                std::int64_t groups, std::int64_t scales,
                                                                bool half, void* prepared) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= scales) {
    return;
  }
  const std::int64_t block_and_group = i / kTileRows;
  const std::int64_t row =
      block_and_group / groups * kTileRows + row_of_scale_place(static_cast<int>(i % kTileRows));
  const float value = row < out_features ? scale[row * groups + block_and_group % groups] : 0.0F;
  if (half) {
    static_cast<std::uint16_t*>(prepared)[i] = ptx::to_float16(value);
  } else {
    static_cast<float*>(prepared)[i] = value;
  }
}

}  // namespace

std::size_t group_scale_bytes(std::int64_t out_features, std::int64_t in_features, std::int64_t group,
                              DataType type) {
  return static_cast<std::size_t>(ceil_div<std::int64_t>(out_features, kTileRows) * kTileRows *
                                  groups_of(in_features, group)) *
         size_of(type);
}

void prepare_group_scales(const float* scale, std::int64_t out_features, std::int64_t in_features,
                          std::int64_t group, DataType type, void* prepared, Stream stream) {
  require_matrix(out_features, in_features, "prepare_group_scales");
  require_group(ScaleGranularity::group, group, "prepare_group_scales");
  require_group_scale_type(type, "prepare_group_scales");
  require_aligned(scale, sizeof(float), "prepare_group_scales", "scale");
  require_aligned(prepared, 16, "prepare_group_scales", "prepared");
  const std::int64_t groups = groups_of(in_features, group);
  const std::int64_t scales = ceil_div<std::int64_t>(out_features, kTileRows) * kTileRows * groups;
  const std::int64_t blocks = ceil_div<std::int64_t>(scales, kThreads);
  if (blocks > 2'147'483'647) {
    throw Error("cuda::prepare_group_scales: " + std::to_string(scales) + " scales are too many");
  }
  launch<group_scales_kernel>("group_scales", {.grid = {static_cast<unsigned>(blocks)}, .block = {kThreads}},
                              stream, scale, out_features, groups, scales, type == DataType::float16,
                              prepared);
}

}  // namespace trit::cuda
