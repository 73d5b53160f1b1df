// SPDX-License-Identifier: MIT
//
// The product tiles of AVX2, with group scales and without, and the epilogue.
#include <immintrin.h>

#include <cstddef>
#include <cstring>

#include "cpu/avx2/avx2.h"
#include "cpu/avx2/group_sums.h"
#include "cpu/avx2/tile.h"

namespace trit::avx2 {
namespace {

/// The sums of a range of k, as int32.
struct OneSum {
  const ProductTile& tile;

  [[gnu::always_inline]] std::int64_t inputs() const { return 4 * kLinesPerFlush; }
  [[gnu::always_inline]] void next() const {}
  [[gnu::always_inline]] void add(std::int64_t k, std::size_t token, std::size_t field, __m256i wide) const {
    auto* const to = reinterpret_cast<__m256i*>(tile.acc + token * kPanelRows + 8 * field);
    _mm256_storeu_si256(to, k == 0 ? _mm256_sub_epi32(wide, _mm256_set1_epi32(tile.q_sum[token]))
                                   : _mm256_add_epi32(wide, _mm256_loadu_si256(to)));
  }
};

/// A sum for each group of at most kLinesPerFlush lines.
template <typename Sums>
struct SumOfGroups {
  Sums sums;
  std::int64_t group;

  SumOfGroups(const Sums& group_sums, std::int64_t inputs_of_group)
      : sums(group_sums), group(inputs_of_group) {}
  [[gnu::always_inline]] std::int64_t inputs() const { return group; }
  [[gnu::always_inline]] void next() { sums.next(); }
  [[gnu::always_inline]] void add(std::int64_t /*k*/, std::size_t token, std::size_t field,
                                  __m256i wide) const {
    sums.add(token, field, _mm256_sub_epi32(wide, sums.q_sum(token)));
  }
};

template <typename Ending>
[[gnu::always_inline]] inline void run_tokens(const ProductTile& tile, const Ending& ending) {
  switch (tile.tokens) {
    case 1:
      return run<1>(tile, ending);
    case 2:
      return run<2>(tile, ending);
    case 3:
      return run<3>(tile, ending);
    default:
      return run<4>(tile, ending);
  }
}

}  // namespace

void product_tile(const ProductTile& tile) { run_tokens(tile, OneSum{tile}); }

void group_tile(const GroupTile& args) {
  with_group_sums(
      args, [&](const auto& sums)
                __attribute__((always_inline)) { run_tokens(args.tile, SumOfGroups(sums, args.group)); });
}

void group_q_sums(const std::int8_t* q, std::int64_t k, std::int64_t group, std::int32_t* sums) {
  const __m256i ones = _mm256_set1_epi8(1);
  for (std::int64_t first = 0; first < k; first += group) {
    const std::int64_t end = first + group < k ? first + group : k;
    __m256i wide = _mm256_setzero_si256();
    std::int64_t at = first;
    for (; at + 32 <= end; at += 32) {
      wide = _mm256_add_epi32(
          wide, _mm256_madd_epi16(_mm256_maddubs_epi16(ones, load(q + at)), _mm256_set1_epi16(1)));
    }
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    std::int32_t sum = _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
    for (; at < end; ++at) {
      sum += q[at];
    }
    *sums++ = sum;
  }
}

namespace {

// float -> bfloat16, half to even, in integers (float_to_bfloat16). A NaN, which comes out of arithmetic and
// so is quiet, keeps its upper half: rounded it could carry into the sign.
__m128i to_bfloat16(__m256 y) {
  const __m256i bits = _mm256_castps_si256(y);
  const __m256i high = _mm256_srli_epi32(bits, 16);
  const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(y, y, _CMP_UNORD_Q));
  const __m256i half = _mm256_blendv_epi8(rounded, high, is_nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

// 8 results to y[0..count). vcvtps2ph rounds half to even by its immediate and keeps denormals.
void store(const EpilogueRow& row, std::int64_t at, __m256 y, std::int64_t count) {
  if (row.y_type == DataType::float32) {
    alignas(32) float all[8];
    float* out = static_cast<float*>(row.y) + at;
    if (count == 8) {
      _mm256_storeu_ps(out, y);
    } else {
      _mm256_store_ps(all, y);
      std::memcpy(out, all, static_cast<std::size_t>(count) * 4);
    }
    return;
  }
  const __m128i half = row.y_type == DataType::bfloat16
                           ? to_bfloat16(y)
                           : _mm256_cvtps_ph(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  std::uint16_t* out = static_cast<std::uint16_t*>(row.y) + at;
  if (count == 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), half);
  } else {
    alignas(16) std::uint16_t all[8];
    _mm_store_si128(reinterpret_cast<__m128i*>(all), half);
    std::memcpy(out, all, static_cast<std::size_t>(count) * 2);
  }
}

}  // namespace

void epilogue_row(const EpilogueRow& row) {
  const __m256 token_scale = _mm256_set1_ps(row.token_scale);
  for (std::int64_t at = 0; at < row.rows; at += 8) {
    const std::int64_t count = row.rows - at < 8 ? row.rows - at : 8;
    // The first `count` lanes.
    const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    const __m256 acc = row.sums != nullptr ? _mm256_maskload_ps(row.sums + at, mask)
                                           : _mm256_cvtepi32_ps(_mm256_maskload_epi32(row.acc + at, mask));
    const __m256 beta = row.weight_scale_per_row ? _mm256_maskload_ps(row.weight_scale + at, mask)
                                                 : _mm256_broadcast_ss(row.weight_scale);
    __m256 y = _mm256_mul_ps(_mm256_mul_ps(acc, token_scale), beta);
    if (row.bias != nullptr) {
      y = _mm256_add_ps(y, _mm256_maskload_ps(row.bias + at, mask));
    }
    store(row, at, y, count);
  }
}

void group_row(const GroupRow& row, std::int64_t panel_rows) {
  const __m256 token_scale = _mm256_set1_ps(row.token_scale);
  for (std::int64_t at = 0; at < panel_rows; at += 8) {
    const __m256 beta = row.weight_scale.type == DataType::float16
                            ? load_scales<std::uint16_t>(row.weight_scale.values, at)
                            : load_scales<float>(row.weight_scale.values, at);
    _mm256_storeu_ps(row.sums + at,
                     _mm256_fmadd_ps(_mm256_cvtepi32_ps(load(row.acc + at)), _mm256_mul_ps(beta, token_scale),
                                     _mm256_loadu_ps(row.sums + at)));
  }
}

}  // namespace trit::avx2
