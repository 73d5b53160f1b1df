// SPDX-License-Identifier: MIT
#include "cpu/amx/float_product.h"

#include <immintrin.h>

#include <cstring>

#include "cpu/amx/tiles.h"

namespace trit::amx {
namespace {

constexpr std::int64_t kLineFloats = 16;

/// The high, middle and low bits of 16 floats, each part the high half of its word. An infinity is all in the
/// first part, and a NaN in all of them.
struct Parts {
  __m512i part[3];
};
[[gnu::always_inline]] inline Parts split(__m512 v) {
  const __m512i mask = _mm512_set1_epi32(static_cast<int>(0xffff0000U));
  const __m512i high = _mm512_and_si512(_mm512_castps_si512(v), mask);
  const __m512 rest = _mm512_maskz_sub_ps(_mm512_cmp_ps_mask(v, _mm512_castsi512_ps(high), _CMP_NEQ_UQ), v,
                                          _mm512_castsi512_ps(high));
  const __m512i middle = _mm512_and_si512(_mm512_castps_si512(rest), mask);
  const __m512 low = _mm512_sub_ps(rest, _mm512_castsi512_ps(middle));
  return {{high, middle, _mm512_castps_si512(low)}};
}

[[gnu::always_inline]] inline __mmask16 first(std::int64_t count) {
  return static_cast<__mmask16>(count >= kLineFloats ? 0xffffU : count <= 0 ? 0U : (1U << count) - 1U);
}

/// Floats [begin, begin + 16) of a row, times its scale; zeros where there are none.
[[gnu::always_inline]] inline __m512 load(const FloatRows& from, std::int64_t row, std::int64_t begin) {
  if (row >= from.rows) {
    return _mm512_setzero_ps();
  }
  const __mmask16 mask = first(from.columns - begin);
  __m512 v = _mm512_maskz_loadu_ps(mask, from.values + row * from.stride + begin);
  if (from.column_scale != nullptr) {
    return _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, from.column_scale + begin));
  }
  return _mm512_mul_ps(v, _mm512_set1_ps(from.row_scale != nullptr ? from.row_scale[row] : from.scale));
}

/// 16 x 16 words, transposed.
[[gnu::always_inline]] inline void transpose(__m512i (&v)[16]) {
  __m512i w[16];
  for (int i = 0; i < 16; i += 2) {
    w[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    w[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    v[i] = _mm512_unpacklo_epi64(w[i], w[i + 2]);
    v[i + 1] = _mm512_unpackhi_epi64(w[i], w[i + 2]);
    v[i + 2] = _mm512_unpacklo_epi64(w[i + 1], w[i + 3]);
    v[i + 3] = _mm512_unpackhi_epi64(w[i + 1], w[i + 3]);
  }
  // v[4 j + i]: in each 128 bits b, column 4 b + i of rows 4 j .. 4 j + 3.
  for (int i = 0; i < 4; ++i) {
    const __m512i low01 = _mm512_shuffle_i32x4(v[i], v[4 + i], 0x88);
    const __m512i high01 = _mm512_shuffle_i32x4(v[i], v[4 + i], 0xdd);
    const __m512i low23 = _mm512_shuffle_i32x4(v[8 + i], v[12 + i], 0x88);
    const __m512i high23 = _mm512_shuffle_i32x4(v[8 + i], v[12 + i], 0xdd);
    w[i] = _mm512_shuffle_i32x4(low01, low23, 0x88);
    w[8 + i] = _mm512_shuffle_i32x4(low01, low23, 0xdd);
    w[4 + i] = _mm512_shuffle_i32x4(high01, high23, 0x88);
    w[12 + i] = _mm512_shuffle_i32x4(high01, high23, 0xdd);
  }
  for (int i = 0; i < 16; ++i) {
    v[i] = w[i];
  }
}

/// What tile kTile is to begin with.
template <int kTile>
[[gnu::always_inline]] inline void begin_tile(const float* c, std::int64_t stride, bool add) {
  if (add) {
    load_tile<kTile>(static_cast<const void*>(c), stride * std::int64_t{sizeof(float)});
  } else {
    zero_tile<kTile>();
  }
}

/// 32 x 32 sums at c, `stride` floats apart.
void sums(const std::int8_t* parts, const std::int8_t* pairs, std::int64_t steps, float* c,
          std::int64_t stride, bool add) {
  // A tile that is stored more than 2,200 cycles after the last one takes 600 to 800 more: 16 products of 16
  // cycles are 3 steps, so every 8 steps one is stored to nowhere.
  constexpr std::int64_t kStoreEvery = 8;
  alignas(64) Tile nowhere;
  float* const below = c + 16 * stride;
  begin_tile<0>(c, stride, add);
  begin_tile<1>(c + 16, stride, add);
  begin_tile<2>(below, stride, add);
  begin_tile<3>(below + 16, stride, add);
  for (std::int64_t step = 0; step < steps; ++step) {
    load_tile<6>(pairs);
    load_tile<7, kTileBytes>(pairs);
    const auto part = [&]<int kPart>() __attribute__((always_inline)) {
      load_tile_once<4, kPart * 2 * kTileBytes>(parts);
      multiply_bf16<0, 4, 6>();
      multiply_bf16<1, 4, 7>();
      load_tile_once<5, kPart * 2 * kTileBytes + kTileBytes>(parts);
      multiply_bf16<2, 5, 6>();
      multiply_bf16<3, 5, 7>();
    };
    part.template operator()<0>();
    part.template operator()<1>();
    part.template operator()<2>();
    parts += kPartsBytes;
    pairs += kPairsBytes;
    if (step % kStoreEvery == kStoreEvery - 1) {
      store_tile<7>(nowhere.bytes);
    }
  }
  const std::int64_t bytes = stride * std::int64_t{sizeof(float)};
  store_tile<0>(c, bytes);
  store_tile<1>(c + 16, bytes);
  store_tile<2>(below, bytes);
  store_tile<3>(below + 16, bytes);
}

}  // namespace

void rows_to_parts(const FloatRows& from, std::int8_t* parts) {
  alignas(64) static constexpr std::uint16_t kHighHalves[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21,
                                                                23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43,
                                                                45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  const __m512i halves = _mm512_load_si512(kHighHalves);
  for (std::int64_t row = 0; row < kFloatStep; ++row) {
    const Parts low = split(load(from, row, 0));
    const Parts high = split(load(from, row, kLineFloats));
    for (int i = 0; i < 3; ++i) {
      _mm512_store_si512(parts + i * 2 * kTileBytes + row * kTileRowBytes,
                         _mm512_permutex2var_epi16(low.part[i], halves, high.part[i]));
    }
  }
}

void columns_to_parts(const FloatRows& from, std::int8_t* parts) {
  const __m512i mask = _mm512_set1_epi32(static_cast<int>(0xffff0000U));
  for (std::int64_t half = 0; half < 2; ++half) {
    __m512i words[3][16];
    for (std::int64_t pair = 0; pair < 16; ++pair) {
      const Parts even = split(load(from, 2 * pair, half * kLineFloats));
      const Parts odd = split(load(from, 2 * pair + 1, half * kLineFloats));
      for (int i = 0; i < 3; ++i) {
        words[i][pair] =
            _mm512_or_si512(_mm512_srli_epi32(even.part[i], 16), _mm512_and_si512(odd.part[i], mask));
      }
    }
    for (int i = 0; i < 3; ++i) {
      transpose(words[i]);
      for (std::int64_t row = 0; row < 16; ++row) {
        _mm512_store_si512(parts + (i * 2 + half) * kTileBytes + row * kTileRowBytes, words[i][row]);
      }
    }
  }
}

void codes_to_pairs(const std::uint8_t* codes, std::int64_t row_bytes, std::int64_t rows,
                    std::int64_t columns, std::int8_t* pairs) {
  // Codes 0, 1, 3 (2 never occurs) as bf16: 0, 1, -1; the pair's first code in bits 0 and 1 of the index.
  constexpr auto kBrain = [](unsigned code) { return code == 0 ? 0U : code == 1 ? 0x3f80U : 0xbf80U; };
  alignas(64) static constexpr auto kPairs = [=] {
    struct {
      std::uint32_t words[16];
    } table{};
    for (unsigned i = 0; i < 16; ++i) {
      table.words[i] = kBrain(i & 3U) | kBrain(i >> 2U) << 16U;
    }
    return table;
  }();
  const __m512i table = _mm512_load_si512(kPairs.words);
  const __m512i shift = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i rotation = _mm512_sub_epi32(shift, _mm512_set1_epi32(2));  // vprorvd takes it modulo 32
  const __m512i low = _mm512_set1_epi32(3);
  const auto bytes = static_cast<std::size_t>((columns + 3) / 4);
  // Columns that are not there: whole codes of zero.
  const std::uint64_t mask =
      columns >= kFloatStep ? ~std::uint64_t{0} : (std::uint64_t{1} << (2 * columns)) - 1;
  const auto row_codes = [&](std::int64_t row) __attribute__((always_inline)) {
    std::uint64_t word = 0;
    if (row < rows) {
      if (columns >= kFloatStep) {
        std::memcpy(&word, codes + row * row_bytes, sizeof word);
      } else {
        std::memcpy(&word, codes + row * row_bytes, bytes);
      }
    }
    return word & mask;
  };
  for (std::int64_t pair = 0; pair < 16; ++pair) {
    const std::uint64_t even = row_codes(2 * pair);
    const std::uint64_t odd = row_codes(2 * pair + 1);
    for (int half = 0; half < 2; ++half) {
      const __m512i first =
          _mm512_srlv_epi32(_mm512_set1_epi32(static_cast<int>(even >> (32 * half))), shift);
      const __m512i second =
          _mm512_rorv_epi32(_mm512_set1_epi32(static_cast<int>(odd >> (32 * half))), rotation);
      // The bits of `first` where `low` is set, else those of `second`; vpermd reads four of them.
      const __m512i index = _mm512_ternarylogic_epi32(low, first, second, 0xca);
      _mm512_store_si512(pairs + half * kTileBytes + pair * kTileRowBytes,
                         _mm512_permutexvar_epi32(index, table));
    }
  }
}

void integers_to_pairs(const std::int8_t* q, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                       std::int8_t* pairs) {
  const __m512i mask = _mm512_set1_epi32(static_cast<int>(0xffff0000U));
  const auto floats = [&](std::int64_t row, std::int64_t begin) __attribute__((always_inline)) {
    if (row >= rows) {
      return _mm512_setzero_si512();
    }
    const __m128i bytes = _mm_maskz_loadu_epi8(first(columns - begin), q + row * stride + begin);
    return _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)));
  };
  for (std::int64_t pair = 0; pair < 16; ++pair) {
    for (std::int64_t half = 0; half < 2; ++half) {
      const __m512i even = floats(2 * pair, half * kLineFloats);
      const __m512i odd = floats(2 * pair + 1, half * kLineFloats);
      _mm512_store_si512(pairs + half * kTileBytes + pair * kTileRowBytes,
                         _mm512_or_si512(_mm512_srli_epi32(even, 16), _mm512_and_si512(odd, mask)));
    }
  }
}

void float_product(const FloatProduct& args) {
  const TileConfiguration configuration(kTileRows);
  alignas(64) float part[kFloatStep * kFloatStep];
  const std::int8_t* parts = args.parts;
  for (std::int64_t row = 0; row < args.rows; row += kFloatStep, parts += args.block_bytes) {
    float* const c = args.c + row * args.stride;
    const std::int64_t rows = args.rows - row < kFloatStep ? args.rows - row : kFloatStep;
    const bool whole = rows == kFloatStep && args.columns == kFloatStep;
    if (whole && (args.add || !args.non_temporal)) {
      sums(parts, args.pairs, args.steps, c, args.stride, args.add);
      continue;
    }
    const __mmask16 masks[2] = {first(args.columns), first(args.columns - kLineFloats)};
    for (std::int64_t i = 0; args.add && i < rows; ++i) {
      for (int half = 0; half < 2; ++half) {
        _mm512_store_ps(part + i * kFloatStep + half * kLineFloats,
                        _mm512_maskz_loadu_ps(masks[half], c + i * args.stride + half * kLineFloats));
      }
    }
    sums(parts, args.pairs, args.steps, part, kFloatStep, args.add);
    const bool aligned = reinterpret_cast<std::uintptr_t>(c) % 64 == 0 && args.stride % kLineFloats == 0;
    for (std::int64_t i = 0; i < rows; ++i) {
      for (int half = 0; half < 2; ++half) {
        const __m512 line = _mm512_load_ps(part + i * kFloatStep + half * kLineFloats);
        float* const to = c + i * args.stride + half * kLineFloats;
        if (whole && aligned && args.non_temporal) {
          _mm512_stream_ps(to, line);
        } else {
          _mm512_mask_storeu_ps(to, masks[half], line);
        }
      }
    }
  }
  if (args.non_temporal) {
    _mm_sfence();
  }
}

}  // namespace trit::amx
