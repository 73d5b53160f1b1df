// SPDX-License-Identifier: MIT
//
// Weights to frag64x128 (fragments.cuh), from the stored form or from floats.
//
// A thread makes the 16 bytes of one lane of one strip: rows g and g + 8, and of each 4 inputs in every 16.
// Four weights that are neighbours in k are one stored byte, and one A register's share of one word; so a
// word is four of them.
#include "cuda/arguments.cuh"
#include "cuda/fragments.cuh"
#include "cuda/launch.cuh"
#include "cuda/ternary.cuh"

namespace trit::cuda {
namespace {

constexpr int kThreads = 128;  // the lanes of a tile
static_assert(kThreads * 16 == kTileBytes);

// One block per tile. `stored_byte(row, i)` is the stored byte of inputs 4 i .. 4 i + 3 of a row that exists.
template <typename StoredByte>
__device__ __forceinline__ void prepare_tile(std::int64_t out_features, std::int64_t in_features,
                                             std::uint8_t* weights, StoredByte stored_byte) {
  const std::int64_t row_bytes = ceil_div<std::int64_t>(in_features, 4);
  const std::int64_t tiles_along_k = ceil_div<std::int64_t>(in_features, kTileInputs);
  const std::int64_t n = blockIdx.x / tiles_along_k;
  const std::int64_t k = blockIdx.x % tiles_along_k;
  const int thread = static_cast<int>(threadIdx.x);
  const int group = thread % 32 / 4;
  const int column = thread % 4;
  const std::int64_t first_row = n * kTileRows + thread / 32 * kStripRows + group;
  std::uint32_t words[4];
#pragma unroll
  for (int word = 0; word < 4; ++word) {
    words[word] = 0;
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const std::int64_t row = first_row + 8 * (r % 2);
      const std::int64_t i = k * (kTileInputs / 4) + 8 * word + 4 * (r / 2) + column;
      const std::uint32_t codes = row < out_features && i < row_bytes ? stored_byte(row, i) : 0U;
      words[word] |= word_of_codes(codes, r);
    }
  }
  *reinterpret_cast<uint4*>(weights + tile_offset(n, k, tiles_along_k) + thread * 16) =
      make_uint4(words[0], words[1], words[2], words[3]);
}

__global__ __launch_bounds__(kThreads) void prepare_stored_kernel(const std::uint8_t* codes,
                                                                  std::int64_t out_features,
                                                                  std::int64_t in_features,
                                                                  std::uint8_t* weights) {
  const std::int64_t row_bytes = ceil_div<std::int64_t>(in_features, 4);
  prepare_tile(out_features, in_features, weights,
               [&](std::int64_t row, std::int64_t i) { return std::uint32_t{codes[row * row_bytes + i]}; });
}

__global__ __launch_bounds__(kThreads) void prepare_float_kernel(const float* w, std::int64_t out_features,
                                                                 std::int64_t in_features, const float* scale,
                                                                 bool per_row, std::uint8_t* weights) {
  const bool vector = in_features % 4 == 0 && reinterpret_cast<std::uintptr_t>(w) % 16 == 0;
  prepare_tile(out_features, in_features, weights, [&](std::int64_t row, std::int64_t i) {
    const float inverse = __fdiv_rn(1.0F, scale[per_row ? row : 0]);
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
  launch<prepare_stored_kernel>("prepare_stored", {.grid = {tiles}, .block = {kThreads}}, stream, codes,
                                out_features, in_features, weights);
}

void prepare_weights(const float* w, std::int64_t out_features, std::int64_t in_features,
                     ScaleGranularity granularity, const float* scale, std::uint8_t* weights, Stream stream) {
  const unsigned tiles = tiles_of(out_features, in_features, "prepare_weights");
  require_aligned(w, sizeof(float), "prepare_weights", "w");
  require_aligned(scale, sizeof(float), "prepare_weights", "scale");
  require_aligned(weights, 16, "prepare_weights", "weights");
  launch<prepare_float_kernel>("prepare_float", {.grid = {tiles}, .block = {kThreads}}, stream, w,
                               out_features, in_features, scale, granularity == ScaleGranularity::row,
                               weights);
}

}  // namespace trit::cuda
