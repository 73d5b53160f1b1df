// SPDX-License-Identifier: MIT
//
// What a tile does at the end of a group (GroupTile), on panels of 32 rows. For AVX2 and AVX-VNNI.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "cpu/avx2/avx2.h"
#include "cpu/table.h"

namespace trit::avx2 {
namespace {

/// Eight prepared scales to float: exact, and denormals are kept whatever MXCSR says.
template <typename Stored>
[[gnu::always_inline]] inline __m256 load_scales(const void* values, std::int64_t at) {
  if constexpr (sizeof(Stored) == 2) {
    return _mm256_cvtph_ps(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(static_cast<const std::uint16_t*>(values) + at)));
  } else {
    return _mm256_loadu_ps(static_cast<const float*>(values) + at);
  }
}

/// A group. Scales are stored as Stored.
template <typename Stored, bool kTokenScales>
class GroupSums {
 public:
  explicit GroupSums(const GroupTile& args)
      : q_sums_(args.offsets),
        q_sums_stride_(args.offsets_stride),
        scales_(static_cast<const Stored*>(args.weight_scale.values)),
        token_scale_(args.token_scale),
        token_scale_stride_(args.token_scale_stride),
        sums_(args.sums) {}

  [[gnu::always_inline]] void next() {
    ++q_sums_;
    scales_ += kPanelRows;
    if constexpr (kTokenScales) {
      ++token_scale_;
    }
  }
  /// The sum of the token's q.
  [[gnu::always_inline]] __m256i q_sum(std::size_t token) const {
    return _mm256_set1_epi32(q_sums_[static_cast<std::int64_t>(token) * q_sums_stride_]);
  }
  /// sums += scale * sum, of a field's eight rows.
  [[gnu::always_inline]] void add(std::size_t token, std::size_t field, __m256i sum) const {
    __m256 scale = load_scales<Stored>(scales_, 8 * static_cast<std::int64_t>(field));
    if constexpr (kTokenScales) {
      scale = _mm256_mul_ps(
          scale, _mm256_set1_ps(token_scale_[static_cast<std::int64_t>(token) * token_scale_stride_]));
    }
    float* const to = sums_ + kPanelRows * token + 8 * field;
    _mm256_storeu_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, _mm256_loadu_ps(to)));
  }

 private:
  const std::int32_t* q_sums_;
  std::int64_t q_sums_stride_;
  const Stored* scales_;
  const float* token_scale_;
  std::int64_t token_scale_stride_;
  float* sums_;
};

/// function(GroupSums of the right kind).
template <typename Function>
[[gnu::always_inline]] inline void with_group_sums(const GroupTile& args, const Function& function) {
  if (args.weight_scale.type == DataType::float16) {
    args.token_scale != nullptr ? function(GroupSums<std::uint16_t, true>(args))
                                : function(GroupSums<std::uint16_t, false>(args));
  } else {
    args.token_scale != nullptr ? function(GroupSums<float, true>(args))
                                : function(GroupSums<float, false>(args));
  }
}

}  // namespace

}  // namespace trit::avx2
