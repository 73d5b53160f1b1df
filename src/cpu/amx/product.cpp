// SPDX-License-Identifier: MIT
//
// Products of many tokens, AMX (docs/design/cpu-amx.md).
//
// tdpbssd multiplies a tile of 16 tokens x 64 inputs of q (16 rows of 64 bytes) with one of 64 inputs x 16
// output rows of weights, four inputs to a dword, and adds to 16 x 16 int32. A line of the AVX-512 panel, 64
// output rows x 4 inputs, is one row of four such weight tiles: its field j is row g % 16 of the tile of
// output rows 16 j .. 16 j + 15. So the layout is avx512_vnni's, and unpacking is one gf2p8affineqb and one
// store for each field of a line. The affine map turns the code t + 1 of a field into t as a signed byte:
// with bits b1 b0 of the code, never both set, bits 7..1 of t are 1 ^ b0 ^ b1 and bit 0 is 1 ^ b0.
//
// A region is what four tiles of sums hold, 32 tokens x 32 rows or 16 x 64, over all of k. Region follows
// region without a gap: the weights are unpacked into a ring in L1, kAhead steps of 64 inputs before they are
// multiplied (a tile load that meets a store which has not left the store buffer waits for it), across the
// border of regions too, and while a region is multiplied the sums of the one before it become results, a
// line of 16 a step.
#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "cpu/amx/amx.h"
#include "cpu/amx/groups.h"
#include "cpu/amx/results.h"
#include "cpu/amx/step.h"
#include "cpu/amx/tiles.h"
#include "cpu/amx/unit_groups.h"
#include "cpu/amx/unpack.h"

namespace trit::amx {
namespace {

/// `steps` of them, an even number, of 32 tokens x 32 rows where nothing special comes: no end of
/// a region inside what is unpacked, and kLines (0, 1 or 2) lines of float results to write at
/// each. The tiles are waited for by instructions that follow, at most 512 of them, so that what
/// a step executes besides its products and its unpacking takes from the time that it looks
/// ahead: hence this loop beside the general one.
template <int kLines>
[[gnu::always_inline]] inline void plain_steps(const ManyTokens& args, std::int64_t steps,
                                               const std::int8_t* q, Unpack<2>& unpack, NextPanel& next_panel,
                                               Results& before) {
  static_assert(kSlots == 2 * kAhead, "what is multiplied is half a ring from what is unpacked");
  constexpr std::int64_t kSlotBytes = Shape<2>::kUnpackedBytes;
  auto weights = unpack.begin_plain();
  auto results = kLines == 0 ? Results::Plain{} : before.begin_plain(args);
  std::int64_t to = weights.slot * kSlotBytes;
  const auto step = [&]<int kHalf>() __attribute__((always_inline)) {
    const std::int8_t* const multiplied = weights.ring + (to ^ (kAhead * kSlotBytes));
    std::int8_t* const unpacked = weights.ring + to;
    const auto quarter = [&](std::int64_t first) __attribute__((always_inline)) {
      for (std::int64_t i = first; i < first + 4; ++i) {
        const __m512i codes = _mm512_loadu_si512(weights.from + i * kLineBytes);
        _mm512_store_si512(unpacked + i * kLineBytes,
                           _mm512_gf2p8affine_epi64_epi8(codes, weights.map0, 0xff));
        _mm512_store_si512(unpacked + kTileBytes + i * kLineBytes,
                           _mm512_gf2p8affine_epi64_epi8(codes, weights.map1, 0xff));
      }
    };
    load_tile_once<4>(q);
    load_tile<6>(multiplied);
    load_tile<7, kTileBytes>(multiplied);
    load_tile_once<5, kTileBytes>(q);
    multiply<0, 4, 6>();
    quarter(0);
    multiply<1, 4, 7>();
    quarter(4);
    multiply<2, 5, 6>();
    quarter(8);
    multiply<3, 5, 7>();
    quarter(12);
    next_panel.step();
    if constexpr (kLines == 1) {
      results.template write_line<kHalf>();
    } else if constexpr (kLines == 2) {
      results.template write_line<0>();
      results.template write_line<1>();
    }
    q += Shape<2>::kQBytes;
    weights.from += kStepLines * kLineBytes;
    to = (to + kSlotBytes) % (kSlots * kSlotBytes);
  };
  for (std::int64_t done = 0; done < steps; done += 2) {
    step.template operator()<0>();
    step.template operator()<1>();
  }
  unpack.end_plain(steps);
  if constexpr (kLines > 0) {
    before.end_plain(results, kLines * steps);
  }
}

/// As many plain steps, `most` or fewer, as can be taken now.
[[gnu::always_inline]] inline std::int64_t run_plain_steps(const ManyTokens& args, std::int64_t most,
                                                           std::int64_t lines_a_step, const std::int8_t* q,
                                                           Unpack<2>& unpack, NextPanel& next_panel,
                                                           Results& before) {
  std::int64_t steps = std::min(unpack.plain_steps(), most) / 2 * 2;
  if (before.left() == 0) {
    if (steps > 0) {
      plain_steps<0>(args, steps, q, unpack, next_panel, before);
    }
    return steps;
  }
  if (lines_a_step > 2 || !before.is_plain(args)) {
    return 0;
  }
  steps = std::min(steps, before.left() / lines_a_step / 2 * 2);
  if (steps > 0) {
    if (lines_a_step == 1) {
      plain_steps<1>(args, steps, q, unpack, next_panel, before);
    } else {
      plain_steps<2>(args, steps, q, unpack, next_panel, before);
    }
  }
  return steps;
}

template <int kTokenTiles>
[[gnu::noinline]] void run(const ManyTokens& args, Scratch& scratch) {
  using Of = Shape<kTokenTiles>;
  const std::int64_t steps = steps_of(args.k);
  Unpack<kTokenTiles> unpack(args, scratch.ring);
  for (std::int64_t step = 0; step < kAhead; ++step) {
    unpack.step();
  }
  NextPanel next_panel(args, Of::kParts * ceil_div(args.tokens, Of::kTokens));
  std::int64_t slot = 0;
  std::int64_t turn = 0;
  Results before;
  const std::int8_t* q = nullptr;
  const auto general_step = [&](const auto& before_product) __attribute__((always_inline)) {
    multiply_step<kTokenTiles>(q, scratch.ring + slot * Of::kUnpackedBytes, unpack, before_product);
    q += Of::kQBytes;
    slot = (slot + 1) % kSlots;
    next_panel.step();
  };
  const auto nothing = []<int>() {};
  Results next;
  for (Region<kTokenTiles> region(args); !region.at_end(); region.advance()) {
    std::int32_t* const sums = scratch.sums[turn];
    turn = 1 - turn;
    q = args.arranged + region.token() * steps * kStepInputs;
    next_panel.of(region.panel(), region.row() / kPanelRows == (args.rows - 1) / kPanelRows);
    // The sums of the region before (of the first one: nothing's) leave their tiles between the products of
    // this one's first step.
    general_step([sums]<int kTile>() __attribute__((always_inline)) {
      store_sums<kTokenTiles, kTile>(sums);
      zero_tile<kTile>();
    });
    std::int64_t step = 1;
    before = next;
    next = Results(args, region, scratch.sums[turn]);
    if (step < steps) {
      general_step(nothing);
      ++step;
    }
    while (step < steps) {
      const std::int64_t from = step;
      const std::int64_t end = std::min(steps, from + kStepsAwake);
      // One a step, or two, as long as two a step will do for the rest.
      const std::int64_t lines_a_step =
          std::max<std::int64_t>(1, ceil_div(before.left() - 2 * (steps - end), end - from));
      for (; step < end; ++step) {
        if constexpr (kTokenTiles == 2) {
          const std::int64_t plain =
              run_plain_steps(args, end - step, lines_a_step, q, unpack, next_panel, before);
          q += plain * Of::kQBytes;
          slot = (slot + plain) % kSlots;
          step += plain;
          if (step == end) {
            break;
          }
        }
        general_step(nothing);
        for (std::int64_t i = 0; i < lines_a_step && before.left() > 0; ++i) {
          before.write_line<kTokenTiles>(args);
        }
      }
      if (end < steps) {
        store_tile<4>(scratch.nowhere);
      }
    }
    while (before.left() > 0) {
      before.write_line<kTokenTiles>(args);
    }
  }
  std::int32_t* const sums = scratch.sums[turn];
  store_sums<kTokenTiles, 0>(sums);
  store_sums<kTokenTiles, 1>(sums);
  store_sums<kTokenTiles, 2>(sums);
  store_sums<kTokenTiles, 3>(sums);
  while (next.left() > 0) {
    next.write_line<kTokenTiles>(args);
  }
}

/// A block's tokens [from, ...) as a product of their own.
ManyTokens tokens_from(const ManyTokens& args, std::int64_t from, std::int64_t tokens) {
  ManyTokens part = args;
  part.arranged += from * steps_of(args.k) * kStepInputs;
  part.tokens = tokens;
  part.token_scale += from;
  part.y = static_cast<char*>(args.y) + from * args.y_stride;
  return part;
}

/// One panel of several as a product of its own.
ManyTokens panel_of(const ManyTokens& args, std::int64_t panel) {
  ManyTokens part = args;
  const std::int64_t row = panel * kPanelRows;
  part.panels += panel * args.panel_bytes;
  part.rows = std::min(kPanelRows, args.rows - row);
  part.weight_scale += args.weight_scale_per_row ? row : 0;
  part.bias = args.bias == nullptr ? nullptr : args.bias + row;
  part.group_scales = group_scales_of(args, panel, 0);
  part.y = static_cast<char*>(args.y) + row * args.y_bytes;
  return part;
}

/// All of a product, by regions of 32 tokens and, for the rest of a block of tokens, of 16.
template <typename By32, typename By16>
void run_shapes(const ManyTokens& args, const By32& run_by_32, const By16& run_by_16) {
  const std::int64_t rest = args.tokens % kBlockTokens;
  const std::int64_t by_16 = rest > 0 && rest <= kTileRows ? rest : 0;
  const std::int64_t by_32 = args.tokens - by_16;
  if (by_16 == 0) {
    run_by_32(args);
  } else if (by_32 == 0) {
    run_by_16(args);
  } else {
    // Panel by panel, which so comes from memory once.
    for (std::int64_t panel = 0; panel < ceil_div(args.rows, kPanelRows); ++panel) {
      const ManyTokens one = panel_of(args, panel);
      run_by_32(tokens_from(one, 0, by_32));
      run_by_16(tokens_from(one, by_32, by_16));
    }
  }
}

}  // namespace

void product(const ManyTokens& args) {
  // Rows of sums past the last token would only be stored.
  const TileConfiguration configuration(std::min(args.tokens, kTileRows));
  Scratch scratch;
  const auto by_16 = [&scratch](const ManyTokens& part) {
    part.group == 0 ? run<1>(part, scratch) : run_groups<1>(part, scratch);
  };
  if (args.group == 0) {
    run_shapes(args, [&scratch](const ManyTokens& part) { run<2>(part, scratch); }, by_16);
  } else {
    GroupScratch groups;
    run_shapes(args, [&groups](const ManyTokens& part) { run_unit_groups(part, groups); }, by_16);
  }
  if (args.non_temporal) {
    _mm_sfence();  // before anything that tells another thread that y is there
  }
}

}  // namespace trit::amx
