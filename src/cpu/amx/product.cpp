// SPDX-License-Identifier: MIT
//
// The product tile, AMX (docs/kernels.md, "Product, AMX").
//
// tdpbssd multiplies a tile of 16 tokens x 64 inputs of q (16 rows of 64 bytes) with one of 64 inputs x 16
// output rows of weights, four inputs to a dword, and adds to 16 x 16 int32. A line of the AVX-512 panel, 64
// output rows x 4 inputs, is one row of four such weight tiles: its field j is row g % 16 of the tile of
// output rows 16 j .. 16 j + 15. So the layout is avx512_vnni's, and unpacking is one gf2p8affineqb and one
// store for each field of a line. The affine map turns the code t + 1 of a field into t as a signed byte:
// with bits b1 b0 of the code, never both set, bits 7..1 of t are 1 ^ b0 ^ b1 and bit 0 is 1 ^ b0.
//
// The weights are unpacked into a ring in L1, kAhead steps of 64 inputs before they are multiplied: a tile
// load that meets a store which has not left the store buffer waits for it.
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "cpu/amx/amx.h"
#include "cpu/avx512_vnni/avx512_vnni.h"

namespace trit::amx {
namespace {

constexpr std::int64_t kStepInputs = 64;  // inputs in a row of a tile of q
constexpr std::int64_t kTileTokens = 16;
constexpr std::int64_t kTileBytes = 1024;
constexpr std::int64_t kStepLines = 16;  // panel lines of a step
constexpr std::int64_t kLineBytes = 64;
constexpr std::int64_t kPanelRows = 64;
constexpr std::int64_t kPanelPrefetchBytes = 8192;  // from memory to L2
constexpr std::int64_t kNearPrefetchBytes = 4096;   // from L2 to L1
constexpr std::int64_t kAhead = 2;
constexpr std::int64_t kSlots = 4;
// The ring, the partial step's slot, and a tile that nobody reads.
constexpr std::int64_t kRingBytes = (kSlots + 1) * 4 * kTileBytes + kTileBytes;
// A tile store after more than about 2,200 cycles without one takes 600 to 800 cycles longer (40 steps of
// tile products and 4 stores reach 75 % of the peak, 32 steps 95 %): so a tile is stored now and then, to
// nowhere.
constexpr std::int64_t kStepsAwake = 16;

constexpr std::int64_t steps_of(std::int64_t k) { return (k + kStepInputs - 1) / kStepInputs; }

// The tile instructions. Not the compilers' intrinsics: gcc 12's do not say that they read and write memory.

/// A tile in memory, 16 rows of 64 bytes.
struct [[gnu::may_alias]] Tile {
  std::int8_t bytes[kTileBytes];
};

template <int kTile>
[[gnu::always_inline]] inline void load_tile(const std::int8_t* from) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2"
               :
               : "r"(from), "r"(std::int64_t{64}), "i"(kTile), "m"(*reinterpret_cast<const Tile*>(from)));
}
// Without filling L1, for what is used once: tokens stream past the ring of weights, which has to stay there.
template <int kTile>
[[gnu::always_inline]] inline void load_tile_once(const std::int8_t* from) {
  asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2"
               :
               : "r"(from), "r"(std::int64_t{64}), "i"(kTile), "m"(*reinterpret_cast<const Tile*>(from)));
}
template <int kTile>
[[gnu::always_inline]] inline void store_tile(void* to, std::int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
[[gnu::always_inline]] inline void zero_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
template <int kSum, int kQ, int kWeights>
[[gnu::always_inline]] inline void multiply() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kQ), "i"(kWeights));
}

/// To 1 KiB in one piece.
template <int kTile>
[[gnu::always_inline]] inline void store_tile(std::int8_t* to) {
  asm volatile("tilestored %%tmm%c3, (%1,%2,1)"
               : "=m"(*reinterpret_cast<Tile*>(to))
               : "r"(to), "r"(std::int64_t{64}), "i"(kTile));
}

/// All eight tiles 16 rows of 64 bytes, for the time of a call. Released at the end: a thread whose tiles
/// are in their initial state costs nothing at a context switch. Both together take about 200 cycles.
class TileConfiguration {
 public:
  TileConfiguration() {
    struct alignas(64) {
      std::uint8_t palette = 1;
      std::uint8_t start_row = 0;
      std::uint8_t reserved[14] = {};
      std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } static constexpr kConfiguration;
    static_assert(sizeof kConfiguration == 64);
    asm volatile("ldtilecfg %0" : : "m"(kConfiguration));
  }
  ~TileConfiguration() { asm volatile("tilerelease"); }
  TileConfiguration(const TileConfiguration&) = delete;
  TileConfiguration& operator=(const TileConfiguration&) = delete;
};

/// The map of field j for gf2p8affineqb, in every 8 bytes: byte 7 - i says which bits of a panel byte are
/// added (modulo 2) to make bit i: the field's lower bit for bit 0, both for the others.
inline __m512i map_of(int field) {
  const std::uint64_t low = std::uint64_t{1} << (2 * field);
  return _mm512_set1_epi64(static_cast<std::int64_t>(3 * low * 0x0001010101010101U + (low << 56)));
}

/// Unpacks kCount fields of the lines of a step, from kFirst on, each field to a tile of its own.
template <int kFirst, int kCount>
class Unpack {
 public:
  static constexpr std::int64_t kStepBytes = kCount * kTileBytes;

  // Members of their own, not an array, which gcc 12 would keep in memory.
  Unpack() : map0_(map_of(kFirst)), map1_(map_of(kFirst + 1)), map2_(map_of(2)), map3_(map_of(3)) {}

  /// One line of the panel to one row of each tile.
  [[gnu::always_inline]] void line(const std::uint8_t* line, std::int8_t* row) const {
    const __m512i codes = _mm512_loadu_si512(line);
    _mm512_store_si512(row, _mm512_gf2p8affine_epi64_epi8(codes, map0_, 0xff));
    _mm512_store_si512(row + kTileBytes, _mm512_gf2p8affine_epi64_epi8(codes, map1_, 0xff));
    if constexpr (kCount == 4) {
      _mm512_store_si512(row + 2 * kTileBytes, _mm512_gf2p8affine_epi64_epi8(codes, map2_, 0xff));
      _mm512_store_si512(row + 3 * kTileBytes, _mm512_gf2p8affine_epi64_epi8(codes, map3_, 0xff));
    }
  }
  [[gnu::always_inline]] void lines(const std::uint8_t* from, std::int64_t count, std::int8_t* tiles) const {
    for (std::int64_t i = 0; i < count; ++i) {
      line(from + i * kLineBytes, tiles + i * kLineBytes);
    }
  }

 private:
  __m512i map0_, map1_, map2_, map3_;
};

/// Steps of 64 inputs, the weights of each unpacked kAhead steps before: `multiply_step(step, weights,
/// unpack_quarter)` multiplies and calls unpack_quarter.operator()<0..3>() in between.
template <int kFirst, int kCount, typename MultiplyStep>
[[gnu::always_inline]] inline void for_each_step(const ProductTile& args, std::int8_t* ring,
                                                 const MultiplyStep& multiply_step) {
  using Fields = Unpack<kFirst, kCount>;
  std::int8_t* const last = ring + kSlots * Fields::kStepBytes;
  const auto slot = [&](std::int64_t step) { return ring + step % kSlots * Fields::kStepBytes; };
  const Fields fields;
  const std::int64_t whole = args.k / kStepInputs;
  const std::uint8_t* line = args.panel;
  for (std::int64_t step = 0; step < kAhead && step < whole; ++step) {
    fields.lines(line, kStepLines, slot(step));
    line += kStepLines * kLineBytes;
  }
  const std::int64_t left = args.k % kStepInputs;
  if (left > 0) {
    std::memset(last, 0, static_cast<std::size_t>(Fields::kStepBytes));
    fields.lines(args.panel + whole * kStepLines * kLineBytes, left / 4, last);
  }
  std::int64_t step = 0;
  while (step + kAhead < whole) {
    const std::int64_t awake = step + kStepsAwake;
    const std::int64_t end = awake < whole - kAhead ? awake : whole - kAhead;
    for (; step < end; ++step) {
      std::int8_t* const ahead = slot(step + kAhead);
      multiply_step(
          step, slot(step), [&]<int kQuarter>() __attribute__((always_inline)) {
            for (std::int64_t i = 4 * kQuarter; i < 4 * kQuarter + 4; ++i) {
              const auto* const at = reinterpret_cast<const char*>(line + i * kLineBytes);
              _mm_prefetch(at + kNearPrefetchBytes, _MM_HINT_T0);
              if constexpr (kFirst == 0) {  // the second half of the fields finds the lines in cache
                _mm_prefetch(at + kPanelPrefetchBytes, _MM_HINT_T1);
              }
              fields.line(line + i * kLineBytes, ahead + i * kLineBytes);
            }
          });
      line += kStepLines * kLineBytes;
    }
    store_tile<4>(last + Fields::kStepBytes);
  }
  const auto nothing = []<int kQuarter>() {};
  for (; step < whole; ++step) {
    multiply_step(step, slot(step), nothing);
  }
  if (left > 0) {
    multiply_step(step, last, nothing);
  }
}

constexpr std::int64_t kBlockTokens = 2 * kTileTokens;

/// The lines of y that the epilogue will write, one token a step: it would wait for each of them, since every
/// token's row of y is in another page. Part kPart of kParts of a row of results.
template <std::int64_t kTokens, std::int64_t kPart, std::int64_t kParts>
class ResultPrefetch {
 public:
  ResultPrefetch(const ProductTile& args, std::int64_t block)
      : tokens_(args.y == nullptr ? 0 : args.tokens - block),
        stride_(args.y_stride),
        bytes_(args.y_bytes / kParts),
        first_(args.y == nullptr ? nullptr
                                 : static_cast<const char*>(args.y) + block * stride_ + kPart * bytes_) {}
  [[gnu::always_inline]] void step(std::int64_t token) const {
    if (token < kTokens && token < tokens_) {
      for (std::int64_t at = 0; at < bytes_; at += kLineBytes) {
        asm volatile("prefetchw %0" : : "m"(first_[token * stride_ + at]));
      }
    }
  }

 private:
  std::int64_t tokens_;
  std::int64_t stride_;
  std::int64_t bytes_;
  const char* first_;
};

/// 16 tokens x 64 rows: 1 tile of q, 4 of weights, 4 sums.
[[gnu::noinline]] void few_tokens(const ProductTile& args, std::int64_t block, const std::int8_t* q,
                                  std::int8_t* ring, std::int32_t* acc) {
  const ResultPrefetch<kTileTokens, 0, 1> results(args, block);
  zero_tile<0>();
  zero_tile<1>();
  zero_tile<2>();
  zero_tile<3>();
  for_each_step<0, 4>(
      args, ring,
      [&](std::int64_t step, const std::int8_t* weights, const auto& unpack) __attribute__((always_inline)) {
        results.step(step);
        load_tile_once<4>(q + step * kTileBytes);
        load_tile<5>(weights);
        multiply<0, 4, 5>();
        unpack.template operator()<0>();
        load_tile<6>(weights + kTileBytes);
        multiply<1, 4, 6>();
        unpack.template operator()<1>();
        load_tile<7>(weights + 2 * kTileBytes);
        multiply<2, 4, 7>();
        unpack.template operator()<2>();
        load_tile<5>(weights + 3 * kTileBytes);
        multiply<3, 4, 5>();
        unpack.template operator()<3>();
      });
  constexpr std::int64_t kStride = kPanelRows * 4;
  store_tile<0>(acc, kStride);
  store_tile<1>(acc + 16, kStride);
  store_tile<2>(acc + 32, kStride);
  store_tile<3>(acc + 48, kStride);
}

/// 32 tokens x the 32 rows of fields kFirst and kFirst + 1: 2 tiles of q, 2 of weights, 4 sums.
template <int kFirst>
[[gnu::noinline]] void many_tokens(const ProductTile& args, std::int64_t block, const std::int8_t* q,
                                   std::int8_t* ring, std::int32_t* acc) {
  const ResultPrefetch<kBlockTokens, kFirst / 2, 2> results(args, block);
  zero_tile<0>();
  zero_tile<1>();
  zero_tile<2>();
  zero_tile<3>();
  for_each_step<kFirst, 2>(
      args, ring,
      [&](std::int64_t step, const std::int8_t* weights, const auto& unpack) __attribute__((always_inline)) {
        const std::int8_t* const tokens = q + step * 2 * kTileBytes;
        results.step(step);
        load_tile_once<4>(tokens);
        load_tile<6>(weights);
        multiply<0, 4, 6>();
        unpack.template operator()<0>();
        load_tile<7>(weights + kTileBytes);
        multiply<1, 4, 7>();
        unpack.template operator()<1>();
        load_tile_once<5>(tokens + kTileBytes);
        multiply<2, 5, 6>();
        unpack.template operator()<2>();
        multiply<3, 5, 7>();
        unpack.template operator()<3>();
      });
  constexpr std::int64_t kStride = kPanelRows * 4;
  std::int32_t* const to = acc + 16 * kFirst;
  store_tile<0>(to, kStride);
  store_tile<1>(to + 16, kStride);
  store_tile<2>(to + kTileTokens * kPanelRows, kStride);
  store_tile<3>(to + kTileTokens * kPanelRows + 16, kStride);
}

/// Tokens of the block's arrangement: whole tiles.
constexpr std::int64_t padded_tokens(std::int64_t tokens) {
  return (tokens + kTileTokens - 1) / kTileTokens * kTileTokens;
}

}  // namespace

// Blocks of 32 tokens, the last of 16 where that holds the rest. In a block: steps of 64 inputs; in a step:
// one or two tiles of 16 tokens x 64 bytes. Tokens and inputs that are missing are zeros, so that the
// multiplying loops know nothing of them.
std::int64_t arranged_bytes(std::int64_t tokens, std::int64_t k) {
  return padded_tokens(tokens) * steps_of(k) * kStepInputs;
}

void arrange(const ProductTile& tile, std::int8_t* arranged) {
  const std::int64_t steps = steps_of(tile.k);
  const std::int64_t left = tile.k - (steps - 1) * kStepInputs;
  const __mmask64 last = left == kStepInputs ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
  for (std::int64_t block = 0; block < tile.tokens; block += kBlockTokens) {
    const std::int64_t tokens = tile.tokens - block < kBlockTokens ? tile.tokens - block : kBlockTokens;
    const std::int64_t rows = padded_tokens(tokens);
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int8_t* const from = tile.q + (block + row) * tile.q_stride;
      std::int8_t* const to = arranged + block * steps * kStepInputs + row * kStepInputs;
      for (std::int64_t step = 0; step < steps; ++step) {
        const __mmask64 bytes = row >= tokens ? 0 : step + 1 == steps ? last : ~__mmask64{0};
        _mm512_store_si512(to + step * rows * kStepInputs,
                           _mm512_maskz_loadu_epi8(bytes, from + step * kStepInputs));
      }
    }
  }
}

void product_tile(const ProductTile& tile) {
  if (tile.arranged == nullptr) {
    return avx512_vnni::product_tile(tile);
  }
  const TileConfiguration configuration;
  alignas(64) std::int8_t ring[kRingBytes];
  for (std::int64_t block = 0; block < tile.tokens; block += kBlockTokens) {
    const std::int8_t* const q = tile.arranged + block * steps_of(tile.k) * kStepInputs;
    std::int32_t* const acc = tile.acc + block * kPanelRows;
    if (tile.tokens - block <= kTileTokens) {
      few_tokens(tile, block, q, ring, acc);
    } else {
      many_tokens<0>(tile, block, q, ring, acc);
      many_tokens<2>(tile, block, q, ring, acc);
    }
  }
}

}  // namespace trit::amx
