// SPDX-License-Identifier: MIT
//
// ternarize_pack: float weights and their scales to the stored form (trit/format.h).
//
// One block per row; a thread turns 4 weights, 16 bytes, into one byte, so a warp reads 512 contiguous bytes
// and writes 32. Bytes: 4 N K read, N K / 4 written.
#include "cuda/common/checks.h"
#include "cuda/common/groups.h"
#include "cuda/common/launch.cuh"
#include "cuda/rows/ternary.cuh"

namespace trit::cuda {
namespace {

constexpr int kThreads = 256;

__global__ __launch_bounds__(kThreads) void ternarize_pack_kernel(const float* w, std::int64_t in_features,
                                                                  const float* scale, RowScales scales,
                                                                  std::uint8_t* codes) {
  const std::int64_t row = blockIdx.x;
  const std::int64_t row_bytes = ceil_div<std::int64_t>(in_features, 4);
  const float* weights = w + row * in_features;
  const bool vector = reinterpret_cast<std::uintptr_t>(weights) % 16 == 0;
  const float of_row = __fdiv_rn(1.0F, scale[scales.at(row, 0)]);
#pragma unroll 4
  for (std::int64_t i = threadIdx.x; i < row_bytes; i += kThreads) {
    const float inverse = scales.group == 0 ? of_row : __fdiv_rn(1.0F, scale[scales.at(row, 4 * i)]);
    codes[row * row_bytes + i] =
        static_cast<std::uint8_t>(ternary_byte(weights + 4 * i, in_features - 4 * i, inverse, vector));
  }
}

}  // namespace

void ternarize_pack(const float* w, std::int64_t out_features, std::int64_t in_features,
                    ScaleGranularity granularity, const float* scale, std::uint8_t* codes, Stream stream,
                    std::int64_t group) {
  require_matrix(out_features, in_features, "ternarize_pack");
  require_group(granularity, group, "ternarize_pack");
  require_aligned(w, sizeof(float), "ternarize_pack", "w");
  require_aligned(scale, sizeof(float), "ternarize_pack", "scale");
  require_aligned(codes, 1, "ternarize_pack", "codes");
  launch<ternarize_pack_kernel>("ternarize_pack",
                                {.grid = {static_cast<unsigned>(out_features)}, .block = {kThreads}}, stream,
                                w, in_features, scale, row_scales(granularity, in_features, group), codes);
}

}  // namespace trit::cuda
