// SPDX-License-Identifier: MIT
//
// The order of the regions of a product, and what a call works in.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/amx/tiles.h"
#include "cpu/table.h"

namespace trit::amx {
namespace {

constexpr std::int64_t kStepInputs = 64;  // inputs in a row of a tile of q
constexpr std::int64_t kStepLines = 16;   // panel lines of a step
constexpr std::int64_t kLineBytes = 64;
constexpr std::int64_t kPanelRows = 64;
// One step ahead is too near (43 % of the peak against 62 in a small loop), and a longer ring is not in L1
// when it is written again (7 steps: 49 %). Slots are a power of two.
constexpr std::int64_t kAhead = 2;
constexpr std::int64_t kSlots = 4;
static_assert(kAhead < kSlots);
// A tile store after more than about 2,200 cycles without one takes 600 to 800 cycles
// longer (40 steps of tile products and 4 stores reach 75 % of the peak, 32 steps 95 %): so
// a tile is stored now and then, to nowhere.
constexpr std::int64_t kStepsAwake = 16;

constexpr std::int64_t kRegionSums = 4 * kTileBytes / 4;

// Not base/integer.h: with that template, gcc 12 allocates the registers of the loops in another way.
constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
constexpr std::int64_t steps_of(std::int64_t k) { return ceil_div(k, kStepInputs); }

/// The four tiles of sums: kTokenTiles x kWeightTiles.
template <int kTokenTiles>
struct Shape {
  static constexpr int kWeightTiles = 4 / kTokenTiles;
  static constexpr std::int64_t kTokens = kTokenTiles * kTileRows;
  static constexpr std::int64_t kRows = kWeightTiles * kTileRows;
  static constexpr std::int64_t kParts = kPanelRows / kRows;         // regions of a panel and block of tokens
  static constexpr std::int64_t kQBytes = kTokenTiles * kTileBytes;  // of a step
  static constexpr std::int64_t kUnpackedBytes = kWeightTiles * kTileBytes;  // of a step
};
constexpr std::int64_t kMaxUnpackedBytes = Shape<1>::kUnpackedBytes;

/// What a call works in, all of it in L1.
struct alignas(64) Scratch {
  std::int8_t ring[kSlots * kMaxUnpackedBytes] = {};
  std::int32_t sums[2][kRegionSums];  // of two regions in turn
  std::int8_t nowhere[kTileBytes];
};

/// The regions in their order: panel by panel, in a panel block of tokens by block, in a block part by part.
template <int kTokenTiles>
class Region {
 public:
  using Of = Shape<kTokenTiles>;

  explicit Region(const ManyTokens& args) : args_(args) {}
  bool at_end() const { return row_ >= args_.rows; }
  void advance() {
    part_row_ += Of::kRows;
    if (part_row_ < kPanelRows && row_ + part_row_ < args_.rows) {
      return;
    }
    part_row_ = 0;
    token_ += Of::kTokens;
    if (token_ < args_.tokens) {
      return;
    }
    token_ = 0;
    row_ += kPanelRows;
  }
  const std::uint8_t* panel() const { return args_.panels + row_ / kPanelRows * args_.panel_bytes; }
  int first_field() const { return static_cast<int>(part_row_ / kTileRows); }
  std::int64_t token() const { return token_; }
  std::int64_t tokens() const { return std::min(Of::kTokens, args_.tokens - token_); }
  std::int64_t row() const { return row_ + part_row_; }
  std::int64_t rows() const { return std::min(Of::kRows, args_.rows - row()); }

 private:
  const ManyTokens& args_;
  std::int64_t row_ = 0;       // of the panel
  std::int64_t part_row_ = 0;  // in the panel
  std::int64_t token_ = 0;
};

}  // namespace
}  // namespace trit::amx
