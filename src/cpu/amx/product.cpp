// SPDX-License-Identifier: MIT
//
// Products of many tokens, AMX (docs/kernels.md, "Product, AMX").
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
#include "cpu/amx/tiles.h"
#include "cpu/avx512_vnni/epilogue.h"

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
// A tile store after more than about 2,200 cycles without one takes 600 to 800 cycles longer (40 steps of
// tile products and 4 stores reach 75 % of the peak, 32 steps 95 %): so a tile is stored now and then, to
// nowhere.
constexpr std::int64_t kStepsAwake = 16;

constexpr std::int64_t kRegionSums = 4 * kTileBytes / 4;

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
constexpr std::int64_t kMostUnpackedBytes = Shape<1>::kUnpackedBytes;

/// What a call works in, all of it in L1.
struct alignas(64) Scratch {
  std::int8_t ring[kSlots * kMostUnpackedBytes] = {};
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

/// The lines of results of a region, one after the other.
class Results {
 public:
  Results() = default;
  template <int kTokenTiles>
  [[gnu::always_inline]] Results(const ManyTokens& args, const Region<kTokenTiles>& region,
                                 const std::int32_t* sums)
      : left_(region.tokens() * ceil_div(region.rows(), 16)),
        rows_(region.rows()),
        sums_(sums),
        row_scale_(args.row_scale + region.token()),
        scale_(args.scale + (args.scale_per_row ? region.row() : 0)),
        bias_(args.bias == nullptr ? nullptr : args.bias + region.row()),
        y_(static_cast<char*>(args.y) + region.token() * args.y_stride + region.row() * args.y_bytes) {}

  std::int64_t left() const { return left_; }
  /// The next result is the first of a token's 32, float32, and none is missing.
  bool is_plain(const ManyTokens& args) const {
    return args.y_type == DataType::float32 && rows_ == Shape<2>::kRows && at_ == 0;
  }
  struct Plain {
    const std::int32_t* sums;
    const float* row_scale;
    char* y;
    std::int64_t y_stride;
    bool streams;
    // Of rows 0 to 15 and 16 to 31. Where there is no bias -0.0, which changes no sum.
    __m512 scale[2];
    __m512 bias[2];

    template <int kHalf>
    [[gnu::always_inline]] void write_line() {
      const __m512 acc = _mm512_cvtepi32_ps(_mm512_load_si512(sums + 16 * kHalf));
      const __m512 scaled = _mm512_mul_ps(_mm512_mul_ps(acc, _mm512_set1_ps(*row_scale)), scale[kHalf]);
      const __m512 result = _mm512_add_ps(scaled, bias[kHalf]);
      auto* const to = reinterpret_cast<float*>(y) + 16 * kHalf;
      if (streams) {
        _mm512_stream_ps(to, result);
      } else {
        _mm512_storeu_ps(to, result);
      }
      if constexpr (kHalf == 1) {
        sums += Shape<2>::kRows;
        ++row_scale;
        y += y_stride;
      }
    }
  };
  [[gnu::always_inline]] Plain begin_plain(const ManyTokens& args) const {
    const auto of = [](const float* values, std::int64_t at) __attribute__((always_inline)) {
      return values == nullptr ? _mm512_set1_ps(-0.0F) : _mm512_loadu_ps(values + at);
    };
    const __m512 one = _mm512_set1_ps(*scale_);
    const bool aligned =
        (reinterpret_cast<std::uintptr_t>(y_) | static_cast<std::uintptr_t>(args.y_stride)) % 64 == 0;
    return {.sums = sums_,
            .row_scale = row_scale_,
            .y = y_,
            .y_stride = args.y_stride,
            .streams = args.y_streams && aligned,
            .scale = {args.scale_per_row ? of(scale_, 0) : one, args.scale_per_row ? of(scale_, 16) : one},
            .bias = {of(bias_, 0), of(bias_, 16)}};
  }
  void end_plain(const Plain& plain, std::int64_t lines) {
    left_ -= lines;
    sums_ = plain.sums;
    row_scale_ = plain.row_scale;
    y_ = plain.y;
  }
  template <int kTokenTiles>
  [[gnu::always_inline]] void write_line(const ManyTokens& args) {
    avx512_vnni::epilogue_16({.acc = sums_,
                              .rows = rows_,
                              .row_scale = *row_scale_,
                              .scale = scale_,
                              .scale_per_row = args.scale_per_row,
                              .bias = bias_,
                              .y_type = args.y_type,
                              .y = y_,
                              .streams = args.y_streams},
                             at_);
    next_line<kTokenTiles>(args);
  }

 private:
  template <int kTokenTiles>
  [[gnu::always_inline]] void next_line(const ManyTokens& args) {
    --left_;
    at_ += 16;
    if (at_ >= rows_) {
      at_ = 0;
      sums_ += Shape<kTokenTiles>::kRows;
      ++row_scale_;
      y_ += args.y_stride;
    }
  }

  std::int64_t left_ = 0;
  std::int64_t rows_ = 0;
  const std::int32_t* sums_ = nullptr;
  const float* row_scale_ = nullptr;
  const float* scale_ = nullptr;
  const float* bias_ = nullptr;
  char* y_ = nullptr;
  std::int64_t at_ = 0;
};

/// Fetches the next panel into L2 while this one is multiplied, the same number of lines each step. (Each
/// line beside its use costs 10 % of the speed, even where it is in L2 already.)
class NextPanel {
 public:
  [[gnu::always_inline]] NextPanel(const ManyTokens& args, std::int64_t regions_of_panel)
      : lines_(std::min<std::int64_t>(kMostLines, ceil_div(kStepLines, regions_of_panel))),
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
  static constexpr std::int64_t kMostLines = 8;  // of two regions a panel; the one of 16 tokens fetches half
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
                                                 Unpack<kTokenTiles>& unpack, const auto& before)
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
                                                 Unpack<kTokenTiles>& unpack, const auto& before)
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

/// `steps` of them, an even number, of 32 tokens x 32 rows where nothing special comes: no end of a region
/// inside what is unpacked, and kLines (0, 1 or 2) lines of float results to write at each. The tiles are
/// waited for by instructions that follow, at most 512 of them, so that what a step executes besides its
/// products and its unpacking takes from the time that it looks ahead: hence this loop beside the general
/// one.
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

/// Tile kTile of the sums of a region.
template <int kTokenTiles, int kTile>
[[gnu::always_inline]] inline void store_sums(std::int32_t* to) {
  constexpr std::int64_t kRow = Shape<kTokenTiles>::kRows;
  constexpr std::int64_t kWeightTiles = Shape<kTokenTiles>::kWeightTiles;
  store_tile<kTile>(to + kTile / kWeightTiles * kTileRows * kRow + kTile % kWeightTiles * 16, kRow * 4);
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
  part.row_scale += from;
  part.y = static_cast<char*>(args.y) + from * args.y_stride;
  return part;
}

/// One panel of several as a product of its own.
ManyTokens panel_of(const ManyTokens& args, std::int64_t panel) {
  ManyTokens part = args;
  const std::int64_t row = panel * kPanelRows;
  part.panels += panel * args.panel_bytes;
  part.rows = std::min(kPanelRows, args.rows - row);
  part.scale += args.scale_per_row ? row : 0;
  part.bias = args.bias == nullptr ? nullptr : args.bias + row;
  part.y = static_cast<char*>(args.y) + row * args.y_bytes;
  return part;
}

/// Tokens of the arrangement: whole tiles.
constexpr std::int64_t padded_tokens(std::int64_t tokens) { return ceil_div(tokens, kTileRows) * kTileRows; }

}  // namespace

// Blocks of 32 tokens, the last of 16 where that holds the rest. In a block: steps of 64 inputs; in a step:
// one or two tiles of 16 tokens x 64 bytes. Tokens and inputs that are missing are zeros, so that the
// multiplying loops know nothing of them.
std::int64_t arranged_bytes(std::int64_t tokens, std::int64_t k) {
  return padded_tokens(tokens) * steps_of(k) * kStepInputs;
}

void arrange(const std::int8_t* q, std::int64_t q_stride, std::int64_t tokens, std::int64_t k,
             std::int8_t* arranged) {
  // Four rows side by side, and the next four fetched: a row may be a page, at whose end the hardware stops
  // fetching.
  constexpr std::int64_t kTogether = 4;
  static_assert(kTileRows % kTogether == 0);
  const std::int64_t steps = steps_of(k);
  const std::int64_t left = k - (steps - 1) * kStepInputs;
  const __mmask64 last = left == kStepInputs ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
  for (std::int64_t block = 0; block < tokens; block += kBlockTokens) {
    const std::int64_t in_block = std::min(kBlockTokens, tokens - block);
    const std::int64_t rows = padded_tokens(in_block);
    for (std::int64_t row = 0; row < rows; row += kTogether) {
      const std::int8_t* from[kTogether];
      __mmask64 there[kTogether];
      for (std::int64_t i = 0; i < kTogether; ++i) {
        from[i] = q + (block + std::min(row + i, in_block - 1)) * q_stride;
        there[i] = row + i < in_block ? ~__mmask64{0} : 0;
      }
      const std::int64_t to_next = row + 2 * kTogether <= in_block ? kTogether * q_stride : 0;
      std::int8_t* const to = arranged + block * steps * kStepInputs + row * kStepInputs;
      for (std::int64_t step = 0; step < steps; ++step) {
        const __mmask64 bytes = step + 1 == steps ? last : ~__mmask64{0};
        for (std::int64_t i = 0; i < kTogether; ++i) {
          const std::int8_t* const line = from[i] + step * kStepInputs;
          _mm_prefetch(reinterpret_cast<const char*>(line + to_next), _MM_HINT_T0);
          _mm512_store_si512(to + (step * rows + i) * kStepInputs,
                             _mm512_maskz_loadu_epi8(bytes & there[i], line));
        }
      }
    }
  }
}

void product(const ManyTokens& args) {
  const TileConfiguration configuration;
  Scratch scratch;
  const std::int64_t rest = args.tokens % kBlockTokens;
  const std::int64_t by_16 = rest > 0 && rest <= kTileRows ? rest : 0;
  const std::int64_t by_32 = args.tokens - by_16;
  if (by_16 == 0) {
    run<2>(args, scratch);
  } else if (by_32 == 0) {
    run<1>(args, scratch);
  } else {
    // Panel by panel, which so comes from memory once.
    for (std::int64_t panel = 0; panel < ceil_div(args.rows, kPanelRows); ++panel) {
      const ManyTokens one = panel_of(args, panel);
      run<2>(tokens_from(one, 0, by_32), scratch);
      run<1>(tokens_from(one, by_32, by_16), scratch);
    }
  }
  if (args.y_streams) {
    _mm_sfence();  // before anything that tells another thread that y is there
  }
}

}  // namespace trit::amx
