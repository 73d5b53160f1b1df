// SPDX-License-Identifier: MIT
//
// One step of a product: 64 inputs of a region.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "cpu/amx/region.h"
#include "cpu/amx/tiles.h"
#include "cpu/amx/unpack.h"

namespace trit::amx {
namespace {

/// Fetches the next panel into L2 while this one is multiplied, the same number of lines each step. (Each
/// line beside its use costs 10 % of the speed, even where it is in L2 already.)
class NextPanel {
 public:
  [[gnu::always_inline]] NextPanel(const ManyTokens& args, std::int64_t regions_of_panel)
      : lines_(std::min<std::int64_t>(kMaxLines, ceil_div(kStepLines, regions_of_panel))),
        bytes_(args.panel_bytes) {}
  [[gnu::always_inline]] void of(const std::uint8_t* panel, bool last) {
    if (panel != panel_) {
      panel_ = panel;
      at_ = panel + bytes_;
      end_ = last ? at_ : at_ + bytes_;
    }
  }
  [[gnu::always_inline]] void step() {
    if (at_ < end_) {
      const std::uint8_t* const stop = at_ + lines_ * kLineBytes;
      do {
        _mm_prefetch(reinterpret_cast<const char*>(at_), _MM_HINT_T1);
        at_ += kLineBytes;
      } while (at_ < stop);
    }
  }

 private:
  static constexpr std::int64_t kMaxLines = 8;  // of two regions a panel; the one of 16 tokens fetches half
  std::int64_t lines_;
  std::int64_t bytes_;
  const std::uint8_t* panel_ = nullptr;
  const std::uint8_t* at_ = nullptr;
  const std::uint8_t* end_ = nullptr;
};

/// One step: 16 tokens x 64 rows x 64 inputs, 1 tile of q, 4 of weights. `before(i)` comes before the product
/// for tile i of the sums.
template <int kTokenTiles>
[[gnu::always_inline]] inline void multiply_step(const std::int8_t* q, const std::int8_t* weights,
                                                 auto& unpack, const auto& before)
  requires(kTokenTiles == 1)
{
  load_tile_once<4>(q);
  load_tile<5>(weights);
  before.template operator()<0>();
  multiply<0, 4, 5>();
  unpack.template quarter<0>();
  load_tile<6, kTileBytes>(weights);
  before.template operator()<1>();
  multiply<1, 4, 6>();
  unpack.template quarter<1>();
  load_tile<7, 2 * kTileBytes>(weights);
  before.template operator()<2>();
  multiply<2, 4, 7>();
  unpack.template quarter<2>();
  load_tile<5, 3 * kTileBytes>(weights);
  before.template operator()<3>();
  multiply<3, 4, 5>();
  unpack.template quarter<3>();
}

/// 32 tokens x 32 rows x 64 inputs: 2 tiles of q, 2 of weights.
template <int kTokenTiles>
[[gnu::always_inline]] inline void multiply_step(const std::int8_t* q, const std::int8_t* weights,
                                                 auto& unpack, const auto& before)
  requires(kTokenTiles == 2)
{
  load_tile_once<4>(q);
  load_tile<6>(weights);
  load_tile<7, kTileBytes>(weights);
  load_tile_once<5, kTileBytes>(q);
  before.template operator()<0>();
  multiply<0, 4, 6>();
  unpack.template quarter<0>();
  before.template operator()<1>();
  multiply<1, 4, 7>();
  unpack.template quarter<1>();
  before.template operator()<2>();
  multiply<2, 5, 6>();
  unpack.template quarter<2>();
  before.template operator()<3>();
  multiply<3, 5, 7>();
  unpack.template quarter<3>();
}

/// Tile kTile of the sums of a region.
template <int kTokenTiles, int kTile>
[[gnu::always_inline]] inline void store_sums(std::int32_t* to) {
  constexpr std::int64_t kRow = Shape<kTokenTiles>::kRows;
  constexpr std::int64_t kWeightTiles = Shape<kTokenTiles>::kWeightTiles;
  store_tile<kTile>(to + kTile / kWeightTiles * kTileRows * kRow + kTile % kWeightTiles * 16, kRow * 4);
}

}  // namespace
}  // namespace trit::amx
