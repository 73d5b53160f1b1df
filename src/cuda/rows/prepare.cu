// SPDX-License-Identifier: MIT
//
// Weights from the stored form to frag64x128 (fragments.cuh).
#include "cuda/common/checks.h"
#include "cuda/common/launch.cuh"
#include "cuda/rows/prepare_tile.cuh"

namespace trit::cuda {
namespace {

__global__ __launch_bounds__(kTileThreads) void prepare_stored_kernel(const std::uint8_t* codes,
                                                                      std::int64_t out_features,
                                                                      std::int64_t in_features,
                                                                      std::uint8_t* weights) {
  const std::int64_t row_bytes = ceil_div<std::int64_t>(in_features, 4);
  prepare_tile(blockIdx.x, static_cast<int>(threadIdx.x), out_features, in_features, weights,
               [&](std::int64_t row, std::int64_t i) { return std::uint32_t{codes[row * row_bytes + i]}; });
}

}  // namespace

std::size_t weight_bytes(std::int64_t out_features, std::int64_t in_features) {
  return static_cast<std::size_t>(ceil_div<std::int64_t>(out_features, kTileRows) *
                                  ceil_div<std::int64_t>(in_features, kTileInputs)) *
         kTileBytes;
}

void prepare_weights(const std::uint8_t* codes, std::int64_t out_features, std::int64_t in_features,
                     std::uint8_t* weights, Stream stream) {
  require_matrix(out_features, in_features, "prepare_weights");
  const std::int64_t tiles =
      ceil_div<std::int64_t>(out_features, kTileRows) * ceil_div<std::int64_t>(in_features, kTileInputs);
  if (tiles > 2'147'483'647) {
    throw Error("cuda::prepare_weights: " + std::to_string(tiles) +
                " tiles of 64 x 128 weights, wanted at most 2147483647");
  }
  require_aligned(codes, 1, "prepare_weights", "codes");
  require_aligned(weights, 16, "prepare_weights", "weights");
  launch<prepare_stored_kernel>("prepare_stored",
                                {.grid = {static_cast<unsigned>(tiles)}, .block = {kTileThreads}}, stream,
                                codes, out_features, in_features, weights);
}

}  // namespace trit::cuda
