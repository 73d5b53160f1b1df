// SPDX-License-Identifier: MIT
//
// Weights of a panel to tiles of int8, into the ring.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "cpu/amx/region.h"

namespace trit::amx {
namespace {

/// The map of field j for gf2p8affineqb, in every 8 bytes: byte 7 - i says which bits of a panel byte are
/// added (modulo 2) to make bit i: the field's lower bit for bit 0, both for the others.
[[gnu::always_inline]] inline __m512i map_of(int field) {
  const std::uint64_t low = std::uint64_t{1} << (2 * field);
  return _mm512_set1_epi64(static_cast<std::int64_t>(3 * low * 0x0001010101010101U + (low << 56)));
}

/// Unpacks the weights of step after step and region after region into the ring.
template <int kTokenTiles>
class Unpack {
 public:
  using Of = Shape<kTokenTiles>;

  [[gnu::always_inline]] Unpack(const ManyTokens& args, std::int8_t* ring)
      : ring_(ring), region_(args), lines_(args.k / 4) {
    begin_region();
  }

  /// A quarter of the step; after quarter 3 the next step comes.
  template <int kQuarter>
  [[gnu::always_inline]] void quarter() {
    if (left_ >= kStepLines) [[likely]] {
      for (std::int64_t i = 4 * kQuarter; i < 4 * kQuarter + 4; ++i) {
        line(i);
      }
    } else if (kQuarter == 0) {
      // What is left of k. The rest of the tiles keeps old weights: there q is zero.
      for (std::int64_t i = 0; i < left_; ++i) {
        line(i);
      }
    }
    if constexpr (kQuarter == 3) {
      next_step();
    }
  }
  /// Whole steps up to the region's end.
  std::int64_t plain_steps() const { return left_ / kStepLines; }
  struct Plain {
    std::int8_t* ring;
    std::int64_t slot;
    const std::uint8_t* from;
    __m512i map0, map1;
  };
  [[gnu::always_inline]] Plain begin_plain() const { return {ring_, slot_, from_, map0_, map1_}; }
  void end_plain(std::int64_t steps) {
    slot_ = (slot_ + steps) % kSlots;
    from_ += steps * kStepLines * kLineBytes;
    left_ -= steps * kStepLines;
    next_region_at_end();
  }
  [[gnu::always_inline]] void step() {
    quarter<0>();
    quarter<1>();
    quarter<2>();
    quarter<3>();
  }

 private:
  [[gnu::always_inline]] void line(std::int64_t i) const {
    const __m512i codes = _mm512_loadu_si512(from_ + i * kLineBytes);
    std::int8_t* const row = ring_ + slot_ * Of::kUnpackedBytes + i * kLineBytes;
    _mm512_store_si512(row, _mm512_gf2p8affine_epi64_epi8(codes, map0_, 0xff));
    _mm512_store_si512(row + kTileBytes, _mm512_gf2p8affine_epi64_epi8(codes, map1_, 0xff));
    if constexpr (Of::kWeightTiles == 4) {
      _mm512_store_si512(row + 2 * kTileBytes, _mm512_gf2p8affine_epi64_epi8(codes, map2_, 0xff));
      _mm512_store_si512(row + 3 * kTileBytes, _mm512_gf2p8affine_epi64_epi8(codes, map3_, 0xff));
    }
  }
  [[gnu::always_inline]] void next_step() {
    slot_ = (slot_ + 1) % kSlots;
    from_ += kStepLines * kLineBytes;
    left_ -= kStepLines;
    next_region_at_end();
  }
  [[gnu::always_inline]] void next_region_at_end() {
    if (left_ <= 0 && !region_.at_end()) {
      region_.advance();
      begin_region();
    }
  }
  [[gnu::always_inline]] void begin_region() {
    if (region_.at_end()) {
      left_ = 0;
      return;
    }
    from_ = region_.panel();
    left_ = lines_;
    map0_ = map_of(region_.first_field());
    map1_ = map_of(region_.first_field() + 1);
  }

  std::int8_t* ring_;
  std::int64_t slot_ = 0;
  const std::uint8_t* from_ = nullptr;  // of the step
  std::int64_t left_ = 0;               // lines of the region from there on
  Region<kTokenTiles> region_;
  std::int64_t lines_;
  // Members of their own, not an array, which gcc 12 would keep in memory.
  __m512i map0_, map1_;
  __m512i map2_ = map_of(2);
  __m512i map3_ = map_of(3);
};

}  // namespace
}  // namespace trit::amx
