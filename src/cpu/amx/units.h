// SPDX-License-Identifier: MIT
//
// The order of the units of a product with group scales (unit_groups.h), and their weights.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "cpu/amx/region.h"
#include "cpu/amx/unpack.h"
#include "cpu/table.h"

namespace trit::amx {
namespace {

constexpr std::int64_t kBlocks = 4;
constexpr std::int64_t kUnitGroups = 2;  // of which the sums are kept
constexpr std::int64_t kGroupSlots = kUnitGroups + 1;
/// Steps of a unit; two units are 16 KiB.
constexpr std::int64_t kUnitSteps = 4;

/// What a product with groups works in, all of it in L1.
struct alignas(64) GroupScratch {
  std::int8_t weights[2][kUnitSteps * Shape<2>::kUnpackedBytes] = {};
  std::int32_t sums[kGroupSlots][kRegionSums] = {};
  float scaled[kBlocks][kRegionSums] = {};
};

/// The units in their order: part of a panel by part, in a part kBlocks regions by kBlocks regions, in those
/// from the first input to the last.
class Units {
 public:
  using Of = Shape<2>;

  explicit Units(const ManyTokens& args)
      : args_(args), steps_of_group_(args.group / kStepInputs), all_steps_(steps_of(args.k)) {}

  bool at_end() const { return row_ >= args_.rows; }
  void advance() {
    step_ += steps();
    if (step_ < all_steps_) {
      return;
    }
    step_ = 0;
    token_ += blocks() * Of::kTokens;
    if (token_ < args_.tokens) {
      return;
    }
    token_ = 0;
    row_ += Of::kRows;
  }
  std::int64_t panel() const { return row_ / kPanelRows; }
  std::int64_t row() const { return row_; }
  std::int64_t token() const { return token_; }
  std::int64_t step() const { return step_; }
  std::int64_t steps_of_group() const { return steps_of_group_; }
  std::int64_t steps() const {
    const std::int64_t left = all_steps_ - step_;
    if (is_long()) {
      return std::min({left, kUnitSteps, steps_of_group_ - step_ % steps_of_group_});
    }
    return std::min(left, std::min(kUnitGroups, kUnitSteps / steps_of_group_) * steps_of_group_);
  }
  std::int64_t blocks() const {
    return is_long() ? 1 : std::min(kBlocks, ceil_div(args_.tokens - token_, Of::kTokens));
  }
  bool is_last() const { return step_ + steps() == all_steps_; }

 private:
  bool is_long() const { return steps_of_group_ > kUnitSteps; }

  const ManyTokens& args_;
  std::int64_t steps_of_group_;
  std::int64_t all_steps_;
  std::int64_t row_ = 0;
  std::int64_t token_ = 0;  // of the first block
  std::int64_t step_ = 0;
};

/// Unpacks unit after unit, a few lines at a time.
class UnitUnpack {
 public:
  using Of = Shape<2>;

  UnitUnpack(const ManyTokens& args, GroupScratch& scratch) : args_(args), scratch_(scratch), units_(args) {
    begin_unit();
  }
  /// What is left of the unit; then the next one comes. Returns where the unit lies.
  const std::int8_t* finish() {
    lines(left_);
    const std::int8_t* const unit = scratch_.weights[turn_];
    turn_ = 1 - turn_;
    units_.advance();
    begin_unit();
    return unit;
  }
  /// How many lines a quarter of a step unpacks.
  void set_lines_of_quarter(std::int64_t lines) { lines_of_quarter_ = lines; }
  template <int kQuarter>
  [[gnu::always_inline]] void quarter() {
    lines(lines_of_quarter_);
  }
  /// Whether the next `count` lines are of the unit.
  bool has(std::int64_t count) const { return left_ >= count; }
  struct Plain {
    const std::uint8_t* from;
    std::int8_t* to;    // of the unit
    std::int64_t line;  // in the unit
    __m512i map[2];
  };
  [[gnu::always_inline]] Plain begin_plain(std::int64_t count) {
    const Plain plain{from_, to_, line_, {map0_, map1_}};
    from_ += count * kLineBytes;
    line_ += count;
    left_ -= count;
    return plain;
  }

 private:
  [[gnu::always_inline]] void lines(std::int64_t count) {
    for (std::int64_t end = std::min(count, left_); end > 0; --end) {
      const __m512i codes = _mm512_loadu_si512(from_);
      // A step's tiles one behind the other, a line is a row of each.
      std::int8_t* const row =
          to_ + line_ / kStepLines * Of::kUnpackedBytes + line_ % kStepLines * kLineBytes;
      _mm512_store_si512(row, _mm512_gf2p8affine_epi64_epi8(codes, map0_, 0xff));
      _mm512_store_si512(row + kTileBytes, _mm512_gf2p8affine_epi64_epi8(codes, map1_, 0xff));
      from_ += kLineBytes;
      ++line_;
      --left_;
    }
  }
  void begin_unit() {
    line_ = 0;
    left_ = 0;
    if (units_.at_end()) {
      return;
    }
    const std::int64_t first = units_.step() * kStepLines;
    // What is missing of the last step keeps old weights: there q is zero.
    left_ = std::min(units_.steps() * kStepLines, args_.k / 4 - first);
    from_ = args_.panels + units_.panel() * args_.panel_bytes + first * kLineBytes;
    to_ = scratch_.weights[turn_];
    const int field = static_cast<int>(units_.row() % kPanelRows / kTileRows);
    map0_ = map_of(field);
    map1_ = map_of(field + 1);
  }

  const ManyTokens& args_;
  GroupScratch& scratch_;
  Units units_;
  int turn_ = 0;
  std::int64_t lines_of_quarter_ = 0;
  std::int64_t line_ = 0, left_ = 0;
  const std::uint8_t* from_ = nullptr;
  std::int8_t* to_ = nullptr;
  __m512i map0_, map1_;
};

}  // namespace
}  // namespace trit::amx
