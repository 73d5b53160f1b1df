// SPDX-License-Identifier: MIT
//
// Integer sums of groups to fp32 sums, and those to results.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "cpu/amx/units.h"
#include "cpu/avx512_vnni/epilogue.h"

namespace trit::amx {
namespace {

void write_block(const ManyTokens& args, std::int64_t row, std::int64_t first_token, const float* scaled) {
  static constexpr float kOne = 1.0F;
  const std::int64_t rows = std::min(Shape<2>::kRows, args.rows - row);
  const std::int64_t tokens = std::min(Shape<2>::kTokens, args.tokens - first_token);
  for (std::int64_t i = 0; i < tokens; ++i) {
    const std::int64_t token = first_token + i;
    for (std::int64_t at = 0; at < rows; at += 16) {
      avx512_vnni::epilogue_16({.acc = nullptr,
                                .rows = rows,
                                .token_scale = args.token_scale[token],
                                .weight_scale = &kOne,
                                .weight_scale_per_row = false,
                                .bias = args.bias == nullptr ? nullptr : args.bias + row,
                                .y_type = args.y_type,
                                .y = static_cast<char*>(args.y) + token * args.y_stride + row * args.y_bytes,
                                .non_temporal = args.non_temporal,
                                .sums = scaled + i * Shape<2>::kRows},
                               at);
    }
  }
}

/// The sums of one or two groups of a unit block, and where they go.
struct BlockSums {
  std::int64_t row = 0, token = 0;  // the region's first
  float* scaled = nullptr;
  bool is_last = false;  // of the region: results are next
  int groups = 0;
  const std::int32_t* sums[kUnitGroups] = {};
  PanelScales scales[kUnitGroups] = {};
};

/// scaled = fma((float)sums, scale, scaled) for each group of a unit block, in kPieces pieces.
class UnitAdder {
 public:
  static constexpr std::int64_t kLines = 4;
  static constexpr std::int64_t kPieces = kRegionSums / 16 / kLines;

  [[gnu::always_inline]] void begin(const BlockSums& block) {
    block_ = block;
    piece_ = 0;
  }
  /// All pieces before `end`.
  [[gnu::always_inline]] void pieces(std::int64_t end) {
    for (; piece_ < end; ++piece_) {
      if (block_.groups == 2) {
        piece<2>();
      } else {
        piece<1>();
      }
    }
  }
  const BlockSums& block() const { return block_; }
  void set_done() { piece_ = kPieces; }
  /// The rest, and the results if these were the last sums.
  [[gnu::always_inline]] void finish(const ManyTokens& args) {
    pieces(kPieces);
    if (block_.is_last) {
      write_block(args, block_.row, block_.token, block_.scaled);
      std::fill_n(block_.scaled, kRegionSums, 0.0F);
      block_.is_last = false;
    }
  }

 private:
  template <int kGroups>
  [[gnu::always_inline]] void piece() {
    constexpr std::int64_t kPiecesOfColumn = Shape<2>::kTokens / kLines;
    const std::int64_t row = piece_ / kPiecesOfColumn * 16;
    const std::int64_t token = piece_ % kPiecesOfColumn * kLines;
    const std::int64_t panel_row = block_.row % kPanelRows + row;
    const auto scale = [&](int group) __attribute__((always_inline)) {
      const PanelScales& scales = block_.scales[group];
      return scales.type == DataType::float16
                 ? avx512_vnni::load_scales<std::uint16_t>(scales.values, panel_row)
                 : avx512_vnni::load_scales<float>(scales.values, panel_row);
    };
    const __m512 first = scale(0);
    const __m512 second = scale(kGroups - 1);
    for (std::int64_t i = 0; i < kLines; ++i) {
      const std::int64_t at = (token + i) * Shape<2>::kRows + row;
      __m512 sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(block_.sums[0] + at)), first,
                                   _mm512_load_ps(block_.scaled + at));
      if constexpr (kGroups == 2) {
        sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(block_.sums[1] + at)), second, sum);
      }
      _mm512_store_ps(block_.scaled + at, sum);
    }
  }

  BlockSums block_;
  std::int64_t piece_ = kPieces;
};

}  // namespace
}  // namespace trit::amx
