// SPDX-License-Identifier: MIT
//
// Weights to frag64x128 (fragments.cuh), from the stored form or from floats.
#include "cuda/common/checks.h"
#include "cuda/common/groups.h"
#include "cuda/common/launch.cuh"
#include "cuda/rows/prepare_tile.cuh"
#include "cuda/rows/ternary.cuh"

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

__global__ __launch_bounds__(kTileThreads) void prepare_float_kernel(const float* w,
                                                                     std::int64_t out_features,
                                                                     std::int64_t in_features,
                                                                     const float* scale, RowScales scales,
                                                                     std::uint8_t* weights) {
  const bool vector = in_features % 4 == 0 && reinterpret_cast<std::uintptr_t>(w) % 16 == 0;
  prepare_tile(blockIdx.x, static_cast<int>(threadIdx.x), out_features, in_features, weights,
               [&](std::int64_t row, std::int64_t i) {
                 const float inverse = __fdiv_rn(1.0F, scale[scales.at(row, 4 * i)]);
                 return ternary_byte(w + row * in_features + 4 * i, in_features - 4 * i, inverse, vector);
               });
}

unsigned tiles_of(std::int64_t out_features, std::int64_t in_features, const char* function) {
  require_matrix(out_features, in_features, function);
  const std::int64_t tiles =
      ceil_div<std::int64_t>(out_features, kTileRows) * ceil_div<std::int64_t>(in_features, kTileInputs);
  if (tiles > 2'147'483'647) {
    throw Error(std::string("cuda::") + function + ": " + std::to_string(tiles) +
                " tiles of 64 x 128 weights, wanted at most 2147483647");
  }
  return static_cast<unsigned>(tiles);
}

}  // namespace

std::size_t weight_bytes(std::int64_t out_features, std::int64_t in_features) {
  return static_cast<std::size_t>(ceil_div<std::int64_t>(out_features, kTileRows) *
                                  ceil_div<std::int64_t>(in_features, kTileInputs)) *
         kTileBytes;
}

void prepare_weights(const std::uint8_t* codes, std::int64_t out_features, std::int64_t in_features,
                     std::uint8_t* weights, Stream stream) {
  const unsigned tiles = tiles_of(out_features, in_features, "prepare_weights");
  require_aligned(codes, 1, "prepare_weights", "codes");
  require_aligned(weights, 16, "prepare_weights", "weights");
  launch<prepare_stored_kernel>("prepare_stored", {.grid = {tiles}, .block = {kTileThreads}}, stream, codes,
                                out_features, in_features, weights);
}

void prepare_weights(const float* w, std::int64_t out_features, std::int64_t in_features,
                     ScaleGranularity granularity, const float* scale, std::uint8_t* weights, Stream stream,
                     std::int64_t group) {
  const unsigned tiles = tiles_of(out_features, in_features, "prepare_weights");
  require_group(granularity, group, "prepare_weights");
  require_aligned(w, sizeof(float), "prepare_weights", "w");
  require_aligned(scale, sizeof(float), "prepare_weights", "scale");
  require_aligned(weights, 16, "prepare_weights", "weights");
  launch<prepare_float_kernel>("prepare_float", {.grid = {tiles}, .block = {kTileThreads}}, stream, w,
                               out_features, in_features, scale, row_scales(granularity, in_features, group),
                               weights);
}

}  // namespace trit::cuda
