// SPDX-License-Identifier: MIT
//
// The hybrid block: half of the panels by vpdpbusd, half by lookups (docs/kernels.md, "Hybrid"). Loop order,
// outermost first:
//   k block      kInputs; the weights of all panels become what the tile reads, in scratch (L2)
//   token group  kTokens; their tables are made, 18 KiB (L1)
//   panel pair   the tile; 32-bit sums come from and go to memory
// So a table serves all panels of the block, and weights that were prepared serve all its tokens.
#include "cpu/avx512_vnni/hybrid.h"

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "cpu/avx512_vnni/avx512_vnni.h"

namespace trit::avx512_vnni {
namespace {

using hybrid::kInputs;
using hybrid::kPanels;
using hybrid::kTokens;
using hybrid::kUnitInputs;
using hybrid::Sums;
using hybrid::Tokens;

constexpr std::int64_t kLines = kInputs / 4;
constexpr std::int64_t kPairBytes = hybrid::kUnits * hybrid::kUnitBytes;

std::int64_t minimum(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

/// Brings a k block of all panels to L2 in as many shares as there are tiles: each panel's part of it is 3.4
/// KiB by itself, too short for the hardware to see where it goes.
class Prefetch {
 public:
  Prefetch(const ProductBlock& args, std::int64_t k, std::int64_t shares)
      : panels_(args.panels + 16 * k),
        panel_bytes_(args.panel_bytes),
        lines_(minimum(kLines, (args.k - k) / 4)),
        left_(lines_ > 0 ? args.panel_count : 0),
        per_share_(lines_ > 0 ? (args.panel_count * lines_ + shares - 1) / shares : 0) {}
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

/// The first panel's sums to sums of q * t, as product.cpp does; in place, as the caller wants them.
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

std::int64_t hybrid_scratch_bytes(std::int64_t panel_count) {
  return static_cast<std::int64_t>(sizeof(Tokens)) + panel_count / kPanels * kPairBytes;
}

void hybrid_product_block(const ProductBlock& args) {
  Tokens& tokens = *reinterpret_cast<Tokens*>(args.scratch);
  std::uint8_t* const weights = args.scratch + sizeof(Tokens);
  Sums* const sums = reinterpret_cast<Sums*>(args.acc);
  const std::int64_t pairs = args.panel_count / kPanels;
  const std::int64_t groups = args.tokens / kTokens;
  std::memset(args.acc, 0, static_cast<std::size_t>(pairs * groups) * sizeof(Sums));
  for (std::int64_t k = 0; k < args.k; k += kInputs) {
    const std::int64_t left = args.k - k;
    const std::int64_t units = minimum(hybrid::kUnits, (left + kUnitInputs - 1) / kUnitInputs);
    for (std::int64_t pair = 0; pair < pairs; ++pair) {
      hybrid::prepare_weights(args.panels + kPanels * pair * args.panel_bytes + 16 * k, args.panel_bytes,
                              left / 4, units, weights + pair * kPairBytes);
    }
    Prefetch prefetch(args, minimum(args.k, k + kInputs), pairs * groups);
    for (std::int64_t group = 0; group < groups; ++group) {
      hybrid::prepare_tokens(args.q + kTokens * group * args.q_stride + k, args.q_stride, left, tokens);
      for (std::int64_t pair = 0; pair < pairs; ++pair) {
        prefetch.share();
        Sums& tile_sums = sums[group * pairs + pair];
        hybrid::tile(weights + pair * kPairBytes, tokens, units, tile_sums);
        if (left <= kInputs) {
          finish(args.q_sum + kTokens * group, tile_sums);
        }
      }
    }
  }
}

}  // namespace trit::avx512_vnni
