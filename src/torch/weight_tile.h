// SPDX-License-Identifier: MIT
//
// Columns of a packed weight as floats, for dX = dY · (beta t) on a CPU. Free of torch: src/torch and
// src/torch_stable give the same bits because they cut the product alike.
#pragma once

#include <algorithm>
#include <cstdint>

#include "torch/row_kernels.h"
#include "trit/linear.h"

namespace trit::torch_layer {

/// Columns of a tile: at most 32 MiB of floats, since a narrow tile makes the product slow (512 tokens,
/// 2560 x 2560: 1.5 times the time with 384 columns), and no float copy of a large weight exists. A tile
/// begins at a byte of the codes: a multiple of 64 unless it holds all columns.
inline std::int64_t tile_columns(std::int64_t out_features, std::int64_t in_features) {
  constexpr std::int64_t kTileWeights = std::int64_t{1} << 23;
  return std::min(std::max<std::int64_t>(kTileWeights / out_features / 64 * 64, 64), in_features);
}

/// t[:, first .. first + width) of codes [out_features, row_bytes] as bfloat16 or float32, rows `stride`
/// elements apart; `first` is a multiple of 4.
inline void unpack_tile(Parallel&& parallel, const CpuKernels& table, const std::uint8_t* codes,
                        std::int64_t out_features, std::int64_t row_bytes, std::int64_t first,
                        std::int64_t width, DataType type, void* tile, std::int64_t stride) {
  constexpr std::int64_t kRowsPerTask = 16;
  parallel.run((out_features + kRowsPerTask - 1) / kRowsPerTask, [&](std::int64_t task) {
    const std::int64_t end = std::min(out_features, (task + 1) * kRowsPerTask);
    for (std::int64_t n = task * kRowsPerTask; n < end; ++n) {
      const std::uint8_t* const row = codes + n * row_bytes + first / 4;
      if (type == DataType::bfloat16) {
        unpack_bfloat16_row(row, width, static_cast<std::uint16_t*>(tile) + n * stride);
      } else {
        dequantize_row(table, {row, static_cast<std::size_t>(packed_row_bytes(width))}, 1.0F,
                       {static_cast<float*>(tile) + n * stride, static_cast<std::size_t>(width)});
      }
    }
  });
}

}  // namespace trit::torch_layer
