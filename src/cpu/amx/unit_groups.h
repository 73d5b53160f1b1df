// SPDX-License-Identifier: MIT
//
// Products with group scales. At the end of each group the sums leave the tiles and are scaled and added to
// fp32 sums in L1. That costs stores, which are what limits a region of 32 tokens x 32 rows: 64 cycles of them
// in a group of 128 inputs for the tiles, as many for the fp32 sums and for the unpacked weights, where the
// products take 128. So here (docs/design/cpu-groups.md)
//
//   a unit        is up to kUnitSteps steps, two groups if they fit: fp32 sums are read and written once for both;
//   unit blocks   of up to kBlocks regions one below the other take the same unpacked unit in turn;
//
// and between the products of a unit block the sums of the one before it are scaled, and the next unit is
// unpacked. A group of more than kUnitSteps steps is several units, and stays in its tiles: one region at a time.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "cpu/amx/groups.h"
#include "cpu/amx/step.h"
#include "cpu/amx/tiles.h"
#include "cpu/amx/unit_sums.h"
#include "cpu/amx/units.h"

namespace trit::amx {
namespace {

/// A unit block whose steps, groups and lines to unpack are those of most: the same as the general loop below,
/// with nothing left to count. The tiles are waited for by instructions that follow, at most 512 of them, so that
/// what a step executes besides its products takes from the time that it looks ahead.
template <int kStepsOfGroup, int kLines>
[[gnu::noinline]] void plain_unit_block(const std::int8_t* q, const std::int8_t* weights,
                                        const UnitUnpack::Plain& unpack, NextPanel& next_panel,
                                        std::int32_t* first_sums, std::int32_t* second_sums,
                                        const BlockSums& before) {
  using Of = Shape<2>;
  constexpr int kSteps = kUnitSteps < 2 * kStepsOfGroup ? kUnitSteps : 2 * kStepsOfGroup;
  constexpr int kGroups = kSteps / kStepsOfGroup;
  constexpr int kColumns = Of::kWeightTiles;
  constexpr int kLinesOfSums = kRegionSums / 16;
  constexpr int kHooks = 4 * (kSteps - 1);
  const std::uint8_t* from = unpack.from;
  const __m512i map0 = unpack.map[0], map1 = unpack.map[1];
  // Lines of a quarter lie in one step's tiles.
  std::int8_t* to =
      unpack.to + unpack.line / kStepLines * Of::kUnpackedBytes + unpack.line % kStepLines * kLineBytes;
  std::int64_t line = unpack.line;
  const std::int64_t row = before.row % kPanelRows;
  __m512 scale[kGroups][kColumns];
  const std::int32_t* const sums0 = before.sums[0];
  const std::int32_t* const sums1 = kGroups == 2 ? before.sums[1] : before.sums[0];
  float* const scaled = before.scaled;
  const auto quarter = [&]<int kStep, int kTile>() __attribute__((always_inline)) {
    if constexpr (kStep > 0) {
      constexpr int kHook = 4 * (kStep - 1) + kTile;
      constexpr int kFrom = kLinesOfSums * kHook / kHooks;
      constexpr int kTo = kLinesOfSums * (kHook + 1) / kHooks;
#pragma GCC unroll 64
      for (int i = kFrom; i < kTo; ++i) {
        // Tile by tile, as they are stored.
        const int column = i / 16 % kColumns;
        const int token = i / 16 / kColumns * 16 + i % 16;
        const std::int64_t at = token * Of::kRows + 16 * column;
        __m512 sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums0 + at)), scale[0][column],
                                     _mm512_load_ps(scaled + at));
        if constexpr (kGroups == 2) {
          sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums1 + at)), scale[1][column], sum);
        }
        _mm512_store_ps(scaled + at, sum);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kLines; ++i) {
      const __m512i codes = _mm512_loadu_si512(from + i * kLineBytes);
      std::int8_t* const tiles = to + i * kLineBytes;
      _mm512_store_si512(tiles, _mm512_gf2p8affine_epi64_epi8(codes, map0, 0xff));
      _mm512_store_si512(tiles + kTileBytes, _mm512_gf2p8affine_epi64_epi8(codes, map1, 0xff));
    }
    from += kLines * kLineBytes;
    to += kLines * kLineBytes;
    if constexpr (kTile == 3) {
      line += 4 * kLines;
      if (line % kStepLines == 0) {
        to += Of::kUnpackedBytes - kTileBytes;
      }
    }
  };
  const auto step = [&]<int kStep>() __attribute__((always_inline)) {
    constexpr bool kStores = kStep % kStepsOfGroup == 0;
    std::int32_t* const sums = kStep == 0 ? first_sums : second_sums;
    if constexpr (kStep == 1) {
#pragma GCC unroll 2
      for (int group = 0; group < kGroups; ++group) {
#pragma GCC unroll 4
        for (int column = 0; column < kColumns; ++column) {
          const PanelScales& scales = before.scales[group];
          scale[group][column] =
              scales.type == DataType::float16
                  ? avx512_vnni::load_scales<std::uint16_t>(scales.values, row + 16 * column)
                  : avx512_vnni::load_scales<float>(scales.values, row + 16 * column);
        }
      }
    }
    const auto store = [&]<int kTile>() __attribute__((always_inline)) {
      if constexpr (kStores) {
        store_sums<2, kTile>(sums);
        zero_tile<kTile>();
      }
    };
    const std::int8_t* const tiles = weights + kStep * Of::kUnpackedBytes;
    load_tile_once<4>(q);
    load_tile<6>(tiles);
    load_tile<7, kTileBytes>(tiles);
    load_tile_once<5, kTileBytes>(q);
    store.template operator()<0>();
    multiply<0, 4, 6>();
    quarter.template operator()<kStep, 0>();
    store.template operator()<1>();
    multiply<1, 4, 7>();
    quarter.template operator()<kStep, 1>();
    store.template operator()<2>();
    multiply<2, 5, 6>();
    quarter.template operator()<kStep, 2>();
    store.template operator()<3>();
    multiply<3, 5, 7>();
    quarter.template operator()<kStep, 3>();
    q += Of::kQBytes;
    next_panel.step();
  };
  step.template operator()<0>();
  step.template operator()<1>();
  if constexpr (kSteps == 4) {
    step.template operator()<2>();
    step.template operator()<3>();
  }
}

/// The group's inputs are whole steps.
[[gnu::noinline]] void run_unit_groups(const ManyTokens& args, GroupScratch& scratch) {
  using Of = Shape<2>;
  using Adder = UnitAdder;
  const std::int64_t steps = steps_of(args.k);
  UnitUnpack unpack(args, scratch);
  NextPanel next_panel(args, Of::kParts * ceil_div(args.tokens, Of::kTokens));
  std::fill_n(scratch.scaled[0], kBlocks * kRegionSums, 0.0F);
  Adder adder;
  BlockSums block_sums;    // of the unit block that is multiplied; its last sums are still in the tiles
  std::int64_t group = 0;  // of the sums in the tiles
  std::int64_t slot = 0;
  std::int64_t before_groups = 0;  // of the unit block before
  const auto take = [&](const std::int32_t* sums) __attribute__((always_inline)) {
    block_sums.sums[block_sums.groups] = sums;
    block_sums.scales[block_sums.groups] = group_scales_of(args, block_sums.row / kPanelRows, group);
    ++block_sums.groups;
    slot = (slot + 1) % kGroupSlots;
  };

  zero_tile<0>();
  zero_tile<1>();
  zero_tile<2>();
  zero_tile<3>();
  for (Units unit(args); !unit.at_end(); unit.advance()) {
    const std::int8_t* const weights = unpack.finish();
    const std::int64_t unit_steps = unit.steps();
    const std::int64_t blocks = unit.blocks();
    const std::int64_t lines = ceil_div(kStepLines / 4, blocks);
    unpack.set_lines_of_quarter(lines);
    const std::int64_t unit_groups = std::min<std::int64_t>(2, kUnitSteps / unit.steps_of_group());
    const bool is_plain =
        unit_groups >= 1 && unit.steps_of_group() != 3 && unit_steps == unit_groups * unit.steps_of_group();
    const std::int64_t unit_lines = 4 * lines * unit_steps;
    next_panel.of(args.panels + unit.panel() * args.panel_bytes,
                  unit.panel() == (args.rows - 1) / kPanelRows);
    for (std::int64_t block = 0; block < blocks; ++block) {
      const std::int64_t token = unit.token() + block * Of::kTokens;
      const std::int8_t* q = args.arranged + token * steps * kStepInputs + unit.step() * Of::kQBytes;
      if (is_plain && before_groups == unit_groups && unpack.has(unit_lines)) {
        std::int32_t* const first = scratch.sums[slot];
        take(first);
        std::int32_t* second = nullptr;
        adder.begin(block_sums);
        group = unit.step() / unit.steps_of_group();
        block_sums = {
            .row = unit.row(), .token = token, .scaled = scratch.scaled[block], .is_last = unit.is_last()};
        if (unit_groups == 2) {
          second = scratch.sums[slot];
          take(second);
          ++group;
        }
        const auto plain = unpack.begin_plain(unit_lines);
        const auto run_plain = [&]<int kStepsOfGroup, int kLines>() {
          plain_unit_block<kStepsOfGroup, kLines>(q, weights, plain, next_panel, first, second,
                                                  adder.block());
        };
        if (unit.steps_of_group() == 1) {
          lines == 1   ? run_plain.template operator()<1, 1>()
          : lines == 2 ? run_plain.template operator()<1, 2>()
                       : run_plain.template operator()<1, 4>();
        } else if (unit.steps_of_group() == 2) {
          lines == 1   ? run_plain.template operator()<2, 1>()
          : lines == 2 ? run_plain.template operator()<2, 2>()
                       : run_plain.template operator()<2, 4>();
        } else {
          lines == 1   ? run_plain.template operator()<4, 1>()
          : lines == 2 ? run_plain.template operator()<4, 2>()
                       : run_plain.template operator()<4, 4>();
        }
        adder.set_done();
        adder.finish(args);
        before_groups = unit_groups;
        continue;
      }
      before_groups = ceil_div(unit_steps, unit.steps_of_group());
      std::int64_t due = 0;  // pieces of the adder: its sums are there from the second step on
      for (std::int64_t step = 0; step < unit_steps; ++step) {
        const bool begins_group = (unit.step() + step) % unit.steps_of_group() == 0;
        const bool stores = begins_group && block_sums.scaled != nullptr;
        std::int32_t* const sums = scratch.sums[slot];
        const std::int64_t done = due;
        due = step == 0 ? 0 : ceil_div(Adder::kPieces * step, unit_steps - 1);
        multiply_step<2>(
            q, weights + step * Of::kUnpackedBytes, unpack, [&]<int kTile>() __attribute__((always_inline)) {
              if (stores) {
                store_sums<2, kTile>(sums);
                zero_tile<kTile>();
              }
              adder.pieces(done + (due - done) * (kTile + 1) / 4);
            });
        q += Of::kQBytes;
        next_panel.step();
        if (stores) {
          take(sums);
        }
        if (begins_group) {
          group = (unit.step() + step) / unit.steps_of_group();
        }
        if (begins_group && step == 0) {
          if (stores) {
            adder.begin(block_sums);
          }
          block_sums = {.row = unit.row(), .token = token, .scaled = scratch.scaled[block]};
        }
        block_sums.is_last = unit.is_last();
      }
      adder.finish(args);
    }
  }
  std::int32_t* const sums = scratch.sums[slot];
  store_sums<2, 0>(sums);
  store_sums<2, 1>(sums);
  store_sums<2, 2>(sums);
  store_sums<2, 3>(sums);
  take(sums);
  adder.begin(block_sums);
  adder.finish(args);
}

}  // namespace
}  // namespace trit::amx
