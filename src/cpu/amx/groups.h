// SPDX-License-Identifier: MIT
//
// Products of up to 16 tokens with group scales: at the first step of each group the sums of the group before it leave the
// tiles, and in the steps that follow they are scaled and added to fp32 sums in L1, 8 lines of 16 at a time
// between the products.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "cpu/amx/region.h"
#include "cpu/amx/step.h"
#include "cpu/amx/tiles.h"
#include "cpu/amx/unpack.h"
#include "cpu/avx512_vnni/epilogue.h"
#include "cpu/table.h"

namespace trit::amx {
namespace {

[[gnu::always_inline]] inline PanelScales group_scales_of(const ManyTokens& args, std::int64_t panel,
                                                          std::int64_t group) {
  if (args.group == 0) {
    return {};
  }
  const std::int64_t at = (panel * args.groups + group) * kPanelRows;
  return args.group_scales.type == DataType::float16
             ? PanelScales{static_cast<const std::uint16_t*>(args.group_scales.values) + at,
                           DataType::float16}
             : PanelScales{static_cast<const float*>(args.group_scales.values) + at, DataType::float32};
}

/// scaled += scale * sums, of a group and a region, in kPieces pieces.
template <int kTokenTiles>
class GroupAdder {
 public:
  static constexpr std::int64_t kPieces = 8;

  /// `row` is the region's first one in the panel; sums past its tokens stay as they are.
  [[gnu::always_inline]] void begin(const std::int32_t* sums, PanelScales scales, std::int64_t row,
                                    std::int64_t tokens, float* scaled) {
    tokens_ = tokens;
    sums_ = sums;
    scales_ = scales;
    row_ = row;
    scaled_ = scaled;
    piece_ = 0;
  }
  [[gnu::always_inline]] void piece() {
    constexpr std::int64_t kLines = kRegionSums / 16 / kPieces;
    constexpr std::int64_t kPiecesOfColumn = Shape<kTokenTiles>::kTokens / kLines;
    if (piece_ == kPieces) {
      return;
    }
    const std::int64_t row = piece_ / kPiecesOfColumn * 16;
    const std::int64_t token = piece_ % kPiecesOfColumn * kLines;
    if (token >= tokens_) {
      ++piece_;
      return;
    }
    const __m512 scale = scales_.type == DataType::float16
                             ? avx512_vnni::load_scales<std::uint16_t>(scales_.values, row_ + row)
                             : avx512_vnni::load_scales<float>(scales_.values, row_ + row);
    for (std::int64_t i = 0; i < kLines; ++i) {
      const std::int64_t at = (token + i) * Shape<kTokenTiles>::kRows + row;
      _mm512_store_ps(scaled_ + at, _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums_ + at)), scale,
                                                    _mm512_load_ps(scaled_ + at)));
    }
    ++piece_;
  }
  [[gnu::always_inline]] void finish() {
    while (piece_ < kPieces) {
      piece();
    }
  }

 private:
  const std::int32_t* sums_ = nullptr;
  PanelScales scales_{};
  std::int64_t row_ = 0;
  std::int64_t tokens_ = 0;  // of the region
  float* scaled_ = nullptr;
  std::int64_t piece_ = kPieces;
};

template <int kTokenTiles>
void write_region(const ManyTokens& args, const Region<kTokenTiles>& region, const float* scaled) {
  static constexpr float kOne = 1.0F;
  for (std::int64_t token = 0; token < region.tokens(); ++token) {
    for (std::int64_t at = 0; at < region.rows(); at += 16) {
      avx512_vnni::epilogue_16({.acc = nullptr,
                                .rows = region.rows(),
                                .token_scale = args.token_scale[region.token() + token],
                                .weight_scale = &kOne,
                                .weight_scale_per_row = false,
                                .bias = args.bias == nullptr ? nullptr : args.bias + region.row(),
                                .y_type = args.y_type,
                                .y = static_cast<char*>(args.y) + (region.token() + token) * args.y_stride +
                                     region.row() * args.y_bytes,
                                .non_temporal = args.non_temporal,
                                .sums = scaled + token * Shape<kTokenTiles>::kRows},
                               at);
    }
  }
}

/// The group's inputs are whole steps.
template <int kTokenTiles>
[[gnu::noinline]] void run_groups(const ManyTokens& args, Scratch& scratch) {
  using Of = Shape<kTokenTiles>;
  const std::int64_t steps = steps_of(args.k);
  const std::int64_t steps_of_group = args.group / kStepInputs;
  // In each quarter of a step one piece, two where a group is one step.
  const std::int64_t pieces = ceil_div(GroupAdder<kTokenTiles>::kPieces, steps_of_group);
  Unpack<kTokenTiles> unpack(args, scratch.ring);
  for (std::int64_t step = 0; step < kAhead; ++step) {
    unpack.step();
  }
  NextPanel next_panel(args, Of::kParts * ceil_div(args.tokens, Of::kTokens));
  alignas(64) float scaled[kRegionSums];
  GroupAdder<kTokenTiles> adder;
  std::int64_t slot = 0;
  for (Region<kTokenTiles> region(args); !region.at_end(); region.advance()) {
    const std::int64_t panel = region.row() / kPanelRows;
    const std::int64_t row = region.row() % kPanelRows;
    const std::int8_t* q = args.arranged + region.token() * steps * kStepInputs;
    next_panel.of(region.panel(), panel == (args.rows - 1) / kPanelRows);
    std::fill_n(scaled, kRegionSums, 0.0F);
    zero_tile<0>();
    zero_tile<1>();
    zero_tile<2>();
    zero_tile<3>();
    std::int64_t group = 0;
    for (std::int64_t step = 0; step < steps; ++step) {
      const bool begins_group = step != 0 && step == (group + 1) * steps_of_group;
      std::int32_t* const sums = scratch.sums[group % 2];
      multiply_step<kTokenTiles>(
          q, scratch.ring + slot * Of::kUnpackedBytes,
          unpack, [&]<int kTile>() __attribute__((always_inline)) {
            if (begins_group) {
              store_sums<kTokenTiles, kTile>(sums);
              zero_tile<kTile>();
            }
            for (std::int64_t piece = kTile; piece < pieces; piece += 4) {
              adder.piece();
            }
          });
      q += Of::kQBytes;
      slot = (slot + 1) % kSlots;
      next_panel.step();
      if (begins_group) {
        adder.finish();
        adder.begin(sums, group_scales_of(args, panel, group), row, region.tokens(), scaled);
        ++group;
      }
    }
    adder.finish();
    std::int32_t* const sums = scratch.sums[group % 2];
    store_sums<kTokenTiles, 0>(sums);
    store_sums<kTokenTiles, 1>(sums);
    store_sums<kTokenTiles, 2>(sums);
    store_sums<kTokenTiles, 3>(sums);
    adder.begin(sums, group_scales_of(args, panel, group), row, region.tokens(), scaled);
    adder.finish();
    write_region(args, region, scaled);
  }
}

}  // namespace
}  // namespace trit::amx
