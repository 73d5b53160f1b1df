// SPDX-License-Identifier: MIT
//
// One layer to measure: random weights and activations, and the exact outputs.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bench/lib/aligned_vector.h"
#include "trit/format.h"
#include "trit/linear.h"

namespace trit::bench {

struct LinearShape {
  std::int64_t out_features;  // N
  std::int64_t in_features;   // K
  bool operator==(const LinearShape&) const = default;
};
/// "4096x14336": N x K.
std::string name_of(LinearShape shape);
/// The inverse. Throws Error for anything else, and for numbers outside 1..16,777,215 (int32 sums).
LinearShape shape_from_name(std::string_view name);

/// Activations repeat after this many tokens, so that the reference takes seconds instead of minutes. A
/// prime: no two tokens of a tile are the same.
inline constexpr std::int64_t kDistinctTokens = 37;

struct LinearCase {
  LinearShape shape;
  std::int64_t tokens;               // the largest M; smaller ones take the first rows
  std::vector<std::int8_t> t;        // [N, K]
  TernaryMatrix weight;              // the same, packed; scale 0.037
  AlignedVector<std::int8_t> q;      // [tokens, padded K]; token m is token m mod kDistinctTokens
  std::vector<float> scale;          // [tokens]
  std::vector<std::int32_t> q_sum;   // [tokens]
  std::vector<std::int32_t> acc;     // [min(tokens, kDistinctTokens), N], the exact sums
  AlignedVector<float> x;            // [tokens, K], inputs of a whole layer
  AlignedVector<float> norm_weight;  // [K]
  TernaryMatrix grouped;             // the same codes with float16 scales for groups; empty without
  std::vector<float> grouped_y;      // [min(tokens, kDistinctTokens), N], its outputs by group_product

  QuantizedRows rows(std::int64_t count) const { return {q.data(), scale.data(), q_sum.data(), count}; }
  std::int32_t exact(std::int64_t token, std::int64_t row) const {
    return acc[static_cast<std::size_t>(token % kDistinctTokens * shape.out_features + row)];
  }
};

/// `group` is 0 or the size of the groups of LinearCase::grouped.
LinearCase make_linear_case(LinearShape shape, std::int64_t tokens, std::uint64_t seed, Parallel& parallel,
                            std::int64_t group = 0);

/// Throws Error, with `who` and the first difference, unless y [tokens, N] is bit-identical to the reference,
/// with group scales or without.
void check_outputs(const LinearCase& layer, std::int64_t tokens, std::span<const float> y,
                   std::string_view who, bool grouped = false);

}  // namespace trit::bench
