// SPDX-License-Identifier: MIT
//
// absmean: beta of a float matrix, per tensor or per row.
//
//   abs_sum   one block per row: lane_sum of |w| in fp32                  reads 4 N K bytes
//   mean      one block: lane_sum of the rows' sums in fp64, the mean     per tensor only; reads 4 N bytes
#include "cuda/common/checks.h"
#include "cuda/common/granularity.h"
#include "cuda/common/launch.cuh"
#include "cuda/rows/absmean.cuh"

namespace trit::cuda {
namespace {

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

}  // namespace

std::size_t absmean_workspace_bytes(std::int64_t out_features) {
  return static_cast<std::size_t>(out_features) * sizeof(float);  // the rows' sums
}

void absmean(const float* w, std::int64_t out_features, std::int64_t in_features,
             ScaleGranularity granularity, float* scale, void* workspace, Stream stream) {
  require_matrix(out_features, in_features, "absmean");
  require_no_groups(granularity, "absmean");
  require_aligned(w, sizeof(float), "absmean", "w");
  require_aligned(scale, sizeof(float), "absmean", "scale");
  const bool per_row = granularity == ScaleGranularity::row;
  float* sums = scale;
  if (!per_row) {
    require_aligned(workspace, sizeof(float), "absmean", "workspace");
    sums = static_cast<float*>(workspace);
  }
  launch<abs_sum_kernel>("abs_sum",
                         {.grid = {static_cast<unsigned>(out_features)},
                          .block = {kLanes},
                          .shared_bytes = kLanes * sizeof(float)},
                         stream, w, in_features, per_row, sums);
  if (!per_row) {
    launch<mean_kernel>("mean", {.grid = {1}, .block = {kLanes}, .shared_bytes = kLanes * sizeof(double)},
                        stream, static_cast<const float*>(sums), out_features, in_features, scale);
  }
}

}  // namespace trit::cuda
