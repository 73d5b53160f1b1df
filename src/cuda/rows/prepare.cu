// SPDX-License-Identifier: MIT
//
// Weights from the stored form to frag64x128 (fragments.cuh): a block per tile, each thread the 16 bytes of one lane of
// one strip, rows g and g + 8, and of each 4 inputs in every 16.
#include "cuda/common/checks.h"
#include "cuda/common/launch.cuh"
#include "cuda/rows/strip_fragment.cuh"

namespace trit::cuda {
namespace {

constexpr int kTileThreads = 128;  // the lanes of a tile
static_assert(kTileThreads * 16 == kTileBytes);

__global__ __launch_bounds__(kTileThreads) void prepare_stored_kernel(const std::uint8_t* codes,
                                                                      std::int64_t out_features,
                                                                      std::int64_t in_features,
                                                                      std::uint8_t* weights) {
  const std::int64_t tile = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t row_bytes = ceil_div<std::int64_t>(in_features, 4);
  const std::int64_t tiles_along_k = ceil_div<std::int64_t>(in_features, kTileInputs);
  const std::int64_t n = tile / tiles_along_k;
  const std::int64_t k = tile % tiles_along_k;
  const std::int64_t first_row = n * kTileRows + thread / 32 * kStripRows + thread % 32 / 4;
  const std::int64_t first_byte = k * (kTileInputs / 4) + thread % 4;
  *reinterpret_cast<uint4*>(weights + tile_offset(n, k, tiles_along_k) + thread * 16) =
      strip_fragment([&](int down, int along) {
        const std::int64_t row = first_row + down;
        const std::int64_t i = first_byte + along;
        return row < out_features && i < row_bytes ? std::uint32_t{codes[row * row_bytes + i]} : 0U;
      });
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
