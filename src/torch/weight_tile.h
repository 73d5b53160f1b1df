// SPDX-License-Identifier: MIT
//
// Columns of a packed weight as floats, for dX = dY · (beta t). Free of torch: src/torch and src/torch_stable give
// the same bits because they cut the product alike.
#pragma once

#include <algorithm>
#include <cstdint>

#include "torch/row_kernels.h"
#include "trit/linear.h"

namespace trit::torch_layer {

/// Weights of a tile on a CPU: at most 32 MiB of floats, since a narrow tile makes the product slow (512 tokens,
/// 2560 x 2560: 1.5 times the time with 384 columns), and no float copy of a large weight exists.
inline constexpr std::int64_t kTileWeights = std::int64_t{1} << 23;
/// Columns of a tile, which begins at a byte of the codes: a multiple of 64 unless it holds all columns.
inline std::int64_t tile_columns(std::int64_t out_features, std::int64_t in_features,
                                 std::int64_t tile_weights = kTileWeights) {
  return std::min(std::max<std::int64_t>(tile_weights / out_features / 64 * 64, 64), in_features);
}

/// t[:, first .. first + width) of a weight as bfloat16 or float32, rows `stride` elements apart, times the
/// scales where it has those of groups (in bfloat16 rounded to that). `first` is a multiple of 4, and of 32
/// with group scales.
inline void unpack_tile(Parallel&& parallel, const CpuKernels& table, const TernaryView& weight,
                        std::int64_t first, std::int64_t width, DataType type, void* tile,
                        std::int64_t stride) {
  constexpr std::int64_t kRowsPerTask = 16;
  const std::int64_t rows = weight.out_features;
  const std::int64_t row_bytes = packed_row_bytes(weight.in_features);
  const std::int64_t groups = groups_of(weight.in_features, weight.group);
  const std::int64_t group = weight.group == 0 ? weight.in_features : weight.group;
  parallel.run((rows + kRowsPerTask - 1) / kRowsPerTask, [&](std::int64_t task) {
    const std::int64_t end = std::min(rows, (task + 1) * kRowsPerTask);
    for (std::int64_t n = task * kRowsPerTask; n < end; ++n) {
      // The part of each group that lies in the tile.
      for (std::int64_t k = first; k < first + width;) {
        const std::int64_t g = k / group;
        const std::int64_t count = std::min((g + 1) * group, first + width) - k;
        const float scale = weight.group == 0 ? 1.0F : weight.scale[static_cast<std::size_t>(n * groups + g)];
        const std::uint8_t* const codes = weight.codes.data() + n * row_bytes + k / 4;
        const std::int64_t at = n * stride + k - first;
        if (type == DataType::bfloat16) {
          unpack_bfloat16_row(codes, count, float_to_bfloat16(scale), static_cast<std::uint16_t*>(tile) + at);
        } else {
          dequantize_row(table, {codes, static_cast<std::size_t>(packed_row_bytes(count))}, scale,
                         {static_cast<float*>(tile) + at, static_cast<std::size_t>(count)});
        }
        k += count;
      }
    }
  });
}

}  // namespace trit::torch_layer
