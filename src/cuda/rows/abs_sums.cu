// SPDX-License-Identifier: MIT
//
// The two steps of absmean per tensor, each with the block's sum of absmean.cuh.
#include "cuda/rows/abs_sums.h"

#include "cuda/common/checks.h"
#include "cuda/common/launch.cuh"
#include "cuda/rows/absmean.cuh"

namespace trit::cuda {
namespace {

__global__ __launch_bounds__(kLanes) void abs_sums_kernel(const float* w, std::int64_t in_features,
                                                          float* sums) {
  const float sum = abs_sum(w + std::int64_t{blockIdx.x} * in_features, in_features,
                            reinterpret_cast<float*>(dynamic_shared()));
  if (threadIdx.x == 0) {
    sums[blockIdx.x] = sum;
  }
}

__global__ __launch_bounds__(kLanes) void absmean_of_sums_kernel(const float* sums, std::int64_t out_features,
                                                                 std::int64_t in_features, float* scale) {
  const float beta =
      beta_of_rows(sums, out_features, in_features, reinterpret_cast<double*>(dynamic_shared()));
  if (threadIdx.x == 0) {
    scale[0] = beta;
  }
}

}  // namespace

void abs_sums(const float* w, std::int64_t out_features, std::int64_t in_features, float* sums,
              Stream stream) {
  require_matrix(out_features, in_features, "abs_sums");
  require_aligned(w, sizeof(float), "abs_sums", "w");
  require_aligned(sums, sizeof(float), "abs_sums", "sums");
  launch<abs_sums_kernel>("abs_sums",
                          {.grid = {static_cast<unsigned>(out_features)},
                           .block = {kLanes},
                           .shared_bytes = kLanes * sizeof(float)},
                          stream, w, in_features, sums);
}

void absmean_of_sums(const float* sums, std::int64_t out_features, std::int64_t in_features, float* scale,
                     Stream stream) {
  require_matrix(out_features, in_features, "absmean_of_sums");
  require_aligned(sums, sizeof(float), "absmean_of_sums", "sums");
  require_aligned(scale, sizeof(float), "absmean_of_sums", "scale");
  launch<absmean_of_sums_kernel>("absmean_of_sums",
                                 {.grid = {1}, .block = {kLanes}, .shared_bytes = kLanes * sizeof(double)},
                                 stream, sums, out_features, in_features, scale);
}

}  // namespace trit::cuda
