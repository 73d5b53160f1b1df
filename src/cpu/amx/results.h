// SPDX-License-Identifier: MIT
//
// Sums of a region to rows of y.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "cpu/amx/region.h"
#include "cpu/avx512_vnni/epilogue.h"

namespace trit::amx {
namespace {

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
        token_scale_(args.token_scale + region.token()),
        scale_(args.weight_scale + (args.weight_scale_per_row ? region.row() : 0)),
        bias_(args.bias == nullptr ? nullptr : args.bias + region.row()),
        y_(static_cast<char*>(args.y) + region.token() * args.y_stride + region.row() * args.y_bytes) {}

  std::int64_t left() const { return left_; }
  /// The next result is the first of a token's 32, float32, and none is missing.
  bool is_plain(const ManyTokens& args) const {
    return args.y_type == DataType::float32 && rows_ == Shape<2>::kRows && at_ == 0;
  }
  struct Plain {
    const std::int32_t* sums;
    const float* token_scale;
    char* y;
    std::int64_t y_stride;
    bool non_temporal;
    // Of rows 0 to 15 and 16 to 31. Where there is no bias -0.0, which changes no sum.
    __m512 scale[2];
    __m512 bias[2];

    template <int kHalf>
    [[gnu::always_inline]] void write_line() {
      const __m512 acc = _mm512_cvtepi32_ps(_mm512_load_si512(sums + 16 * kHalf));
      const __m512 scaled = _mm512_mul_ps(_mm512_mul_ps(acc, _mm512_set1_ps(*token_scale)), scale[kHalf]);
      const __m512 result = _mm512_add_ps(scaled, bias[kHalf]);
      auto* const to = reinterpret_cast<float*>(y) + 16 * kHalf;
      if (non_temporal) {
        _mm512_stream_ps(to, result);
      } else {
        _mm512_storeu_ps(to, result);
      }
      if constexpr (kHalf == 1) {
        sums += Shape<2>::kRows;
        ++token_scale;
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
            .token_scale = token_scale_,
            .y = y_,
            .y_stride = args.y_stride,
            .non_temporal = args.non_temporal && aligned,
            .scale = {args.weight_scale_per_row ? of(scale_, 0) : one,
                      args.weight_scale_per_row ? of(scale_, 16) : one},
            .bias = {of(bias_, 0), of(bias_, 16)}};
  }
  void end_plain(const Plain& plain, std::int64_t lines) {
    left_ -= lines;
    sums_ = plain.sums;
    token_scale_ = plain.token_scale;
    y_ = plain.y;
  }
  template <int kTokenTiles>
  [[gnu::always_inline]] void write_line(const ManyTokens& args) {
    avx512_vnni::epilogue_16({.acc = sums_,
                              .rows = rows_,
                              .token_scale = *token_scale_,
                              .weight_scale = scale_,
                              .weight_scale_per_row = args.weight_scale_per_row,
                              .bias = bias_,
                              .y_type = args.y_type,
                              .y = y_,
                              .non_temporal = args.non_temporal},
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
      ++token_scale_;
      y_ += args.y_stride;
    }
  }

  std::int64_t left_ = 0;
  std::int64_t rows_ = 0;
  const std::int32_t* sums_ = nullptr;
  const float* token_scale_ = nullptr;
  const float* scale_ = nullptr;
  const float* bias_ = nullptr;
  char* y_ = nullptr;
  std::int64_t at_ = 0;
};

}  // namespace
}  // namespace trit::amx
