// SPDX-License-Identifier: MIT
//
// absmean: beta of a float matrix, per tensor or per row.
//
//   abs_sum   one block per row: lane_sum of |w| in fp32                  reads 4 N K bytes
//   mean      one block: lane_sum of the rows' sums in fp64, the mean     per tensor only; reads 4 N bytes
#include "cuda/arguments.cuh"
#include "cuda/lane_sum.cuh"
#include "cuda/launch.cuh"

namespace trit::cuda {
namespace {

// Loads in flight per thread: 8 x 4 bytes x 2048 threads are 64 KiB per multiprocessor, four times what hides
// 700 ns of HBM latency at 3.3 TB/s over 132 of them.
constexpr int kInFlight = 8;

// Written so that a NaN passes.
__device__ __forceinline__ float beta_of(float mean) { return mean < 1e-5F ? 1e-5F : mean; }

// out[row] = lane_sum |w[row]|, or its beta where `per_row`.
__global__ __launch_bounds__(kLanes) void abs_sum_kernel(const float* w, std::int64_t in_features,
                                                         bool per_row, float* out) {
  auto* accumulators = reinterpret_cast<float*>(dynamic_shared());  // [256]
  const int thread = static_cast<int>(threadIdx.x);
  const float* row = w + std::int64_t{blockIdx.x} * in_features;
  float acc = 0;
  for (std::int64_t first = thread; first < in_features; first += std::int64_t{kInFlight} * kLanes) {
    float v[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const std::int64_t k = first + i * kLanes;
      v[i] = k < in_features ? row[k] : 0.0F;  // + 0 changes no bit of a sum of magnitudes
    }
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      acc = __fadd_rn(acc, __uint_as_float(__float_as_uint(v[i]) & 0x7fffffffU));
    }
  }
  accumulators[thread] = acc;
  __syncthreads();
  const float sum = tree_sum(accumulators, thread % 32);
  if (thread == 0) {
    out[blockIdx.x] = per_row ? beta_of(__fdiv_rn(sum, static_cast<float>(in_features))) : sum;
  }
}

__global__ __launch_bounds__(kLanes) void mean_kernel(const float* row_sums, std::int64_t out_features,
                                                      std::int64_t in_features, float* scale) {
  auto* accumulators = reinterpret_cast<double*>(dynamic_shared());  // [256]
  const int thread = static_cast<int>(threadIdx.x);
  double acc = 0;
#pragma unroll 8
  for (std::int64_t row = thread; row < out_features; row += kLanes) {
    acc = __dadd_rn(acc, static_cast<double>(row_sums[row]));
  }
  accumulators[thread] = acc;
  __syncthreads();
  const double sum = tree_sum(accumulators, thread % 32);
  if (thread == 0) {
    const double count = __dmul_rn(static_cast<double>(out_features), static_cast<double>(in_features));
    scale[0] = beta_of(__double2float_rn(__ddiv_rn(sum, count)));
  }
}

}  // namespace

std::size_t absmean_workspace_bytes(std::int64_t out_features) {
  return static_cast<std::size_t>(out_features) * sizeof(float);  // the rows' sums
}

void absmean(const float* w, std::int64_t out_features, std::int64_t in_features,
             ScaleGranularity granularity, float* scale, void* workspace, Stream stream) {
  require_matrix(out_features, in_features, "absmean");
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
