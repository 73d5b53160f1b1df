// SPDX-License-Identifier: MIT
//
// Loop order of a block, outermost first:
//   k block      kInputs; the weights of all panels become what the tile reads, in scratch (L2)
//   token group  kTokens; their tables are made, 18 KiB (L1)
//   panel pair   the tile; 32-bit sums come from and go to memory
// So a table serves all panels of the block, and prepared weights serve all its tokens.
#include "cpu/avx512_vnni/hybrid/block.h"

#include <immintrin.h>

#include <cstring>

namespace trit::avx512_vnni::hybrid {
namespace {

// The codes of the 27 table entries as operands of vpmaddubsw: c0, c1 in a word's bytes; c2, 0. Five entries
// are never looked up.
struct EntryCodes {
  alignas(64) std::uint8_t first_and_second[64];
  alignas(64) std::uint8_t third[64];
};
constexpr EntryCodes kEntries = [] {
  EntryCodes codes{};
  for (std::size_t entry = 0; entry < 27; ++entry) {
    codes.first_and_second[2 * entry] = static_cast<std::uint8_t>(entry % 3);
    codes.first_and_second[2 * entry + 1] = static_cast<std::uint8_t>(entry / 3 % 3);
    codes.third[2 * entry] = static_cast<std::uint8_t>(entry / 9);
  }
  return codes;
}();

/// The lowest `left` bytes of a register, none or all where it is out of range.
[[gnu::always_inline]] inline __mmask64 first_bytes(std::int64_t left) {
  return left >= 64 ? ~__mmask64{0} : left <= 0 ? __mmask64{0} : (__mmask64{1} << left) - 1;
}

constexpr std::int64_t kPairBytes = kUnits * kUnitBytes;
constexpr std::int64_t kGroups = kInputs / 12;  // of 12 inputs, four triples

constexpr std::int64_t min(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

/// What the tables of a token are made from, by triple: inputs q0 and q1, twice, and four times q2. A
/// register of either is one broadcast of 4 bytes, a load; from a register it would be another shuffle.
struct Triples {
  alignas(64) std::int32_t first_and_second[kGroups][4];
  alignas(64) std::int32_t third[kGroups][4];  // every other byte meets a code of 0
};
[[gnu::always_inline]] inline void arrange(const std::int8_t* inputs, Triples& triples) {
  const __m128i twice = _mm_setr_epi8(0, 4, 0, 4, 1, 5, 1, 5, 2, 6, 2, 6, 3, 7, 3, 7);
  const __m128i fourfold = _mm_setr_epi8(8, 8, 8, 8, 9, 9, 9, 9, 10, 10, 10, 10, 11, 11, 11, 11);
  for (std::int64_t group = 0; group < kGroups; ++group) {
    const __m128i twelve = _mm_loadu_si128(reinterpret_cast<const __m128i*>(inputs + 12 * group));
    _mm_store_si128(reinterpret_cast<__m128i*>(triples.first_and_second[group]),
                    _mm_shuffle_epi8(twelve, twice));
    _mm_store_si128(reinterpret_cast<__m128i*>(triples.third[group]), _mm_shuffle_epi8(twelve, fourfold));
  }
}

/// Bytes of field `field` of three lines to indices c0 + 3 c1 + 9 c2.
[[gnu::always_inline]] inline __m512i indices(const __m512i* lines, unsigned field) {
  const __m512i code = _mm512_set1_epi8(3);
  const auto c = [&](int line) __attribute__((always_inline)) {
    return _mm512_and_si512(_mm512_srli_epi16(lines[line], 2 * field), code);
  };
  const auto thrice = [](__m512i x) __attribute__((always_inline)) {
    return _mm512_add_epi8(x, _mm512_add_epi8(x, x));
  };
  return _mm512_add_epi8(c(0), thrice(_mm512_add_epi8(c(1), thrice(c(2)))));
}

/// Indices of field `field` of nine lines, three to a word: words of the even bytes (offsets 0 and 2 of a
/// lane) and of the odd ones (1 and 3).
struct Words {
  __m512i even, odd;
};
[[gnu::always_inline]] inline Words words(const __m512i* lines, unsigned field) {
  const __m512i low = _mm512_set1_epi16(0xff);
  const __m512i x0 = indices(lines, field);
  const __m512i x1 = indices(lines + 3, field);
  const __m512i x2 = indices(lines + 6, field);
  const auto join = [](__m512i a, __m512i b, __m512i c) __attribute__((always_inline)) {
    return _mm512_or_si512(a, _mm512_or_si512(_mm512_slli_epi16(b, 5), _mm512_slli_epi16(c, 10)));
  };
  return {join(_mm512_and_si512(x0, low), _mm512_and_si512(x1, low), _mm512_and_si512(x2, low)),
          join(_mm512_srli_epi16(x0, 8), _mm512_srli_epi16(x1, 8), _mm512_srli_epi16(x2, 8))};
}

void prepare_unit(const std::uint8_t* first, const std::uint8_t* second, std::uint8_t* weights) {
  __m512i lines[kUnitLines];
  for (std::int64_t line = 0; line < kUnitLines; ++line) {
    _mm512_store_si512(weights + 64 * line, _mm512_loadu_si512(first + 64 * line));
    lines[line] = _mm512_loadu_si512(second + 64 * line);
  }
  weights += 64 * kUnitLines;
  constexpr __mmask32 kOdd = 0xaaaaaaaa;
  for (unsigned half = 0; half < 2; ++half) {
    const Words low = words(lines, 2 * half);
    const Words high = words(lines, 2 * half + 1);
    const auto store = [&](std::int64_t o, __m512i l, __m512i h) __attribute__((always_inline)) {
      // Offset o of rows l from the low words of dwords, offset o + 2 from the high ones.
      _mm512_store_si512(weights + 128 * o + 64 * half,
                         _mm512_mask_blend_epi16(kOdd, l, _mm512_slli_epi32(h, 16)));
      _mm512_store_si512(weights + 128 * (o + 2) + 64 * half,
                         _mm512_mask_blend_epi16(kOdd, _mm512_srli_epi32(l, 16), h));
    };
    store(0, low.even, high.even);
    store(1, low.odd, high.odd);
  }
}

/// Tables and inputs of four tokens, `q_stride` apart, from k inputs (cut to kInputs); the rest counts as
/// zero.
void prepare_tokens(const std::int8_t* q, std::int64_t q_stride, std::int64_t k, Tokens& tokens) {
  const __m512i first_and_second = _mm512_load_si512(kEntries.first_and_second);
  const __m512i third = _mm512_load_si512(kEntries.third);
  k = min(k, kInputs);
  for (std::int64_t token = 0; token < kTokens; ++token) {
    std::int8_t* const inputs = tokens.q[token];
    __m512i sums = _mm512_setzero_si512();
    for (std::int64_t at = 0; at < 256; at += 64) {
      const __m512i some = _mm512_maskz_loadu_epi8(first_bytes(k - at), q + token * q_stride + at);
      _mm512_store_si512(inputs + at, some);
      sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), some);
    }
    tokens.start[token] = static_cast<std::int16_t>(-_mm512_reduce_add_epi32(sums));
    Triples triples;
    arrange(inputs, triples);
    for (std::int64_t group = 0; group < kGroups; ++group) {
      std::int16_t(*const tables)[kTokens][32] = tokens.tables + kUnitTriples * (group / 3) + group % 3;
      for (std::int64_t o = 0; o < 4; ++o) {
        const __m512i two =
            _mm512_maddubs_epi16(first_and_second, _mm512_set1_epi32(triples.first_and_second[group][o]));
        const __m512i one = _mm512_maddubs_epi16(third, _mm512_set1_epi32(triples.third[group][o]));
        _mm512_store_si512(tables[3 * o][token], _mm512_add_epi16(two, one));
      }
    }
  }
}

/// The weights of `units` units of two panels, `panel_bytes` apart, that have `lines` lines left: where those
/// are fewer than 9 a unit, code 0 takes their place, and meets inputs of zero.
void prepare_weights(const std::uint8_t* panels, std::int64_t panel_bytes, std::int64_t lines,
                     std::int64_t units, std::uint8_t* weights) {
  for (std::int64_t unit = 0; unit < units; ++unit) {
    const std::int64_t line = kUnitLines * unit;
    const std::uint8_t* first = panels + 64 * line;
    const std::uint8_t* second = first + panel_bytes;
    if (line + kUnitLines <= lines) {
      prepare_unit(first, second, weights);
    } else {
      alignas(64) std::uint8_t copy[kPanels][64 * kUnitLines] = {};
      const auto left = static_cast<std::size_t>(lines > line ? 64 * (lines - line) : 0);
      if (left > 0) {
        std::memcpy(copy[0], first, left);
        std::memcpy(copy[1], second, left);
      }
      prepare_unit(copy[0], copy[1], weights);
    }
    weights += kUnitBytes;
  }
}

/// Prefetches the part of all panels in a k block into L2, in as many shares as there are tiles. A panel's
/// part is 3.4 KiB, too short for the hardware prefetcher to follow.
class Prefetch {
 public:
  Prefetch(const Block& block, std::int64_t k, std::int64_t shares)
      : panels_(block.panels + 16 * k),
        panel_bytes_(block.panel_bytes),
        lines_(min(kInputs / 4, (block.k - k) / 4)),
        left_(lines_ > 0 ? kPanels * block.pairs : 0),
        per_share_(lines_ > 0 ? (kPanels * block.pairs * lines_ + shares - 1) / shares : 0) {}
  void share() {
    for (std::int64_t i = 0; i < per_share_ && left_ > 0; ++i) {
      _mm_prefetch(reinterpret_cast<const char*>(panels_ + 64 * line_), _MM_HINT_T1);
      if (++line_ == lines_) {
        line_ = 0;
        panels_ += panel_bytes_;
        --left_;
      }
    }
  }

 private:
  const std::uint8_t* panels_;
  std::int64_t panel_bytes_;
  std::int64_t lines_;
  std::int64_t left_;
  std::int64_t per_share_;
  std::int64_t line_ = 0;
};

/// The first panel's sums to sums of q * t, in place.
void finish(const std::int32_t* q_sum, Sums& sums) {
  for (std::int64_t token = 0; token < kTokens; ++token) {
    std::int32_t(*const acc)[16] = sums.token[token];
    const __m512i offset = _mm512_set1_epi32(q_sum[token]);
    const __m512i s0 = _mm512_load_si512(acc[0]);
    const __m512i s1 = _mm512_load_si512(acc[1]);
    const __m512i s2 = _mm512_load_si512(acc[2]);
    const __m512i s3 =
        _mm512_sub_epi32(_mm512_load_si512(acc[3]), _mm512_add_epi32(s0, _mm512_add_epi32(s1, s2)));
    _mm512_store_si512(acc[0], _mm512_sub_epi32(s0, offset));
    _mm512_store_si512(acc[1], _mm512_sub_epi32(_mm512_srai_epi32(s1, 2), offset));
    _mm512_store_si512(acc[2], _mm512_sub_epi32(_mm512_srai_epi32(s2, 4), offset));
    _mm512_store_si512(acc[3], _mm512_sub_epi32(_mm512_srai_epi32(s3, 6), offset));
  }
}

}  // namespace

std::size_t scratch_bytes(std::int64_t pairs) {
  return sizeof(Tokens) + static_cast<std::size_t>(pairs * kPairBytes);
}

void multiply(const Block& block) {
  Tokens& tokens = *reinterpret_cast<Tokens*>(block.scratch);
  std::uint8_t* const weights = block.scratch + sizeof(Tokens);
  std::memset(block.sums, 0, static_cast<std::size_t>(block.pairs * block.groups) * sizeof(Sums));
  for (std::int64_t k = 0; k < block.k; k += kInputs) {
    const std::int64_t left = block.k - k;
    const std::int64_t units = min(kUnits, (left + kUnitInputs - 1) / kUnitInputs);
    for (std::int64_t pair = 0; pair < block.pairs; ++pair) {
      prepare_weights(block.panels + kPanels * pair * block.panel_bytes + 16 * k, block.panel_bytes, left / 4,
                      units, weights + pair * kPairBytes);
    }
    Prefetch prefetch(block, min(block.k, k + kInputs), block.pairs * block.groups);
    for (std::int64_t group = 0; group < block.groups; ++group) {
      prepare_tokens(block.q + kTokens * group * block.k + k, block.k, left, tokens);
      for (std::int64_t pair = 0; pair < block.pairs; ++pair) {
        prefetch.share();
        Sums& tile_sums = block.sums[group * block.pairs + pair];
        tile(weights + pair * kPairBytes, tokens, units, tile_sums);
        if (left <= kInputs) {
          finish(block.q_sum + kTokens * group, tile_sums);
        }
      }
    }
  }
}

}  // namespace trit::avx512_vnni::hybrid
