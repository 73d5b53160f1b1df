// SPDX-License-Identifier: MIT
//
// absmean: beta of a float matrix, per tensor, per row or per group.
//
//   abs_sum   one block per row: lane_sum of |w| in fp32                  reads 4 N K bytes
//   mean      one block: lane_sum of the rows' sums in fp64, the mean     per tensor only; reads 4 N bytes
//   group     one warp per group: lane_sum of |w| in fp32
#include "cuda/common/checks.h"
#include "cuda/common/groups.h"
#include "cuda/common/launch.cuh"
#include "cuda/rows/absmean.cuh"

namespace trit::cuda {
namespace {

constexpr std::int64_t kMaxBlocks = 1 << 20;  // of warps that take groups in turn

// out[row] = lane_sum |w[row]|, or its beta where `per_row`.
__global__ __launch_bounds__(kLanes) void abs_sum_kernel(const float* w, std::int64_t in_features,
                                                         bool per_row, float* out) {
  const float sum = abs_sum(w + std::int64_t{blockIdx.x} * in_features, in_features,
                            reinterpret_cast<float*>(dynamic_shared()));
  if (threadIdx.x == 0) {
    out[blockIdx.x] = per_row ? beta_of(__fdiv_rn(sum, static_cast<float>(in_features))) : sum;
  }
}

__global__ __launch_bounds__(kLanes) void mean_kernel(const float* row_sums, std::int64_t out_features,
                                                      std::int64_t in_features, float* scale) {
  const float beta =
      beta_of_rows(row_sums, out_features, in_features, reinterpret_cast<double*>(dynamic_shared()));
  if (threadIdx.x == 0) {
    scale[0] = beta;
  }
}

// A warp per group, block (32, kWarps).
__global__ __launch_bounds__(kLanes) void group_absmean_kernel(const float* w, std::int64_t in_features,
                                                               std::int64_t group, std::int64_t groups,
                                                               std::int64_t all_groups, float* scale) {
  const int lane = static_cast<int>(threadIdx.x);
  for (std::int64_t i = std::int64_t{blockIdx.x} * kWarps + threadIdx.y; i < all_groups;
       i += std::int64_t{gridDim.x} * kWarps) {
    const std::int64_t row = i / groups;
    const std::int64_t first = (i - row * groups) * group;
    const std::int64_t count = min(group, in_features - first);
    const float sum = warp_abs_sum(w + row * in_features + first, count, lane);
    if (lane == 0) {
      scale[i] = beta_of(__fdiv_rn(sum, static_cast<float>(count)));
    }
  }
}

void sum_rows(const float* w, std::int64_t out_features, std::int64_t in_features, bool per_row, float* out,
              Stream stream) {
  launch<abs_sum_kernel>("abs_sum",
                         {.grid = {static_cast<unsigned>(out_features)},
                          .block = {kLanes},
                          .shared_bytes = kLanes * sizeof(float)},
                         stream, w, in_features, per_row, out);
}

}  // namespace

std::size_t absmean_workspace_bytes(std::int64_t out_features) {
  return static_cast<std::size_t>(out_features) * sizeof(float);  // the rows' sums
}

void absmean(const float* w, std::int64_t out_features, std::int64_t in_features,
             ScaleGranularity granularity, float* scale, void* workspace, Stream stream, std::int64_t group) {
  require_matrix(out_features, in_features, "absmean");
  require_group(granularity, group, "absmean");
  require_aligned(w, sizeof(float), "absmean", "w");
  require_aligned(scale, sizeof(float), "absmean", "scale");
  if (group > 0) {
    const std::int64_t groups = groups_of(in_features, group);
    const std::int64_t all_groups = out_features * groups;
    const std::int64_t blocks =
        std::min<std::int64_t>(ceil_div<std::int64_t>(all_groups, kWarps), kMaxBlocks);
    return launch<group_absmean_kernel>("group_absmean",
                                        {.grid = {static_cast<unsigned>(blocks)}, .block = {32, kWarps}},
                                        stream, w, in_features, group, groups, all_groups, scale);
  }
  if (granularity == ScaleGranularity::row) {
    return sum_rows(w, out_features, in_features, /*per_row=*/true, scale, stream);
  }
  require_aligned(workspace, sizeof(float), "absmean", "workspace");
  auto* const sums = static_cast<float*>(workspace);
  abs_sums(w, out_features, in_features, sums, stream);
  absmean_of_sums(sums, out_features, in_features, scale, stream);
}

void abs_sums(const float* w, std::int64_t out_features, std::int64_t in_features, float* sums,
              Stream stream) {
  require_matrix(out_features, in_features, "abs_sums");
  require_aligned(w, sizeof(float), "abs_sums", "w");
  require_aligned(sums, sizeof(float), "abs_sums", "sums");
  sum_rows(w, out_features, in_features, /*per_row=*/false, sums, stream);
}

void absmean_of_sums(const float* sums, std::int64_t out_features, std::int64_t in_features, float* scale,
                     Stream stream) {
  require_matrix(out_features, in_features, "absmean_of_sums");
  require_aligned(sums, sizeof(float), "absmean_of_sums", "sums");
  require_aligned(scale, sizeof(float), "absmean_of_sums", "scale");
  launch<mean_kernel>("mean", {.grid = {1}, .block = {kLanes}, .shared_bytes = kLanes * sizeof(double)},
                      stream, sums, out_features, in_features, scale);
}

}  // namespace trit::cuda
