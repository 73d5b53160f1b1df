// SPDX-License-Identifier: MIT
#include "torch/transposed_weight.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

namespace trit::torch_layer {
namespace {

// Codes of rows n .. n + 3 and columns 4 j .. 4 j + 3, row i in byte i, transposed: the 2-bit elements (i, k) and
// (k, i) change places, first within 2 x 2 of them, then 2 x 2 with 2 x 2.
constexpr std::uint32_t transpose_4x4(std::uint32_t block) {
  std::uint32_t swap = (block ^ (block >> 6U)) & 0x00cc00ccU;
  block ^= swap ^ (swap << 6U);
  swap = (block ^ (block >> 12U)) & 0x0000f0f0U;
  return block ^ swap ^ (swap << 12U);
}

// One stored byte of columns 4 j .. 4 j + 3 for each of 64 j, from rows in fours: 64 lines are read and 256
// output rows written, which stay in the first-level cache.
constexpr std::int64_t kBytes = 64;

void transpose_bytes(const std::uint8_t* codes, std::int64_t out_features, std::int64_t in_features,
                     std::int64_t first, std::uint8_t* transposed) {
  const std::int64_t row_bytes = packed_row_bytes(in_features);
  const std::int64_t width = packed_row_bytes(out_features);
  const std::int64_t count = std::min(kBytes, row_bytes - first);
  static constexpr std::array<std::uint8_t, kBytes> kNoRow{};
  for (std::int64_t group = 0; group < width; ++group) {
    std::array<const std::uint8_t*, 4> rows;
    for (std::int64_t i = 0; i < 4; ++i) {
      const std::int64_t row = 4 * group + i;
      rows[static_cast<std::size_t>(i)] =
          row < out_features ? codes + row * row_bytes + first : kNoRow.data();
    }
    for (std::int64_t j = 0; j < count; ++j) {
      const std::uint32_t block =
          transpose_4x4(std::uint32_t{rows[0][j]} | std::uint32_t{rows[1][j]} << 8U |
                        std::uint32_t{rows[2][j]} << 16U | std::uint32_t{rows[3][j]} << 24U);
      std::uint8_t* const to = transposed + 4 * (first + j) * width + group;
      const std::int64_t columns = std::min<std::int64_t>(4, in_features - 4 * (first + j));
      for (std::int64_t i = 0; i < columns; ++i) {
        to[i * width] = static_cast<std::uint8_t>(block >> (8 * i));
      }
    }
  }
}

}  // namespace

PackedLinear transposed_weight(const CpuKernels& kernels, Parallel& parallel, const TernaryView& stored) {
  const std::int64_t out_features = stored.out_features;
  const std::int64_t in_features = stored.in_features;
  const std::int64_t row_bytes = packed_row_bytes(in_features);
  std::vector<std::uint8_t> transposed(
      static_cast<std::size_t>(in_features * packed_row_bytes(out_features)));
  parallel.run((row_bytes + kBytes - 1) / kBytes, [&](std::int64_t block) {
    transpose_bytes(stored.codes.data(), out_features, in_features, block * kBytes, transposed.data());
  });
  const float one = 1.0F;
  const float* const weight_scale = stored.scale.size() == 1 ? stored.scale.data() : &one;
  // Training prepares it at every step: the layout that is the fastest to make.
  return {kernels, parallel, TernaryView{in_features, out_features, transposed, {weight_scale, 1}},
          PanelFormat::two_bit};
}

}  // namespace trit::torch_layer
