// SPDX-License-Identifier: MIT
//
// The Walsh-Hadamard transform of the blocks of a row, for vectors of kBytes bytes. Steps h = 1, 2, 4, ... of
// the definition touch each element once, so that any order of pairs within a step, and any step of one part
// of a block before the last step of another, gives its bits. Hence passes over the block, each as many steps as
// registers allow:
//
//   first pass     kVectors vectors in a row: steps inside a vector, then between the vectors
//   other passes   the same place of up to kVectors parts of the block, h elements apart: the steps between them
//
// With 16 vectors of 16 floats a block of 4096 takes two passes through L1. Compiled by the folders of the
// instruction sets, each for itself.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

namespace trit::vectors {
namespace {

template <int kBytes>
struct Vector {
  static constexpr int kLanes = kBytes / 4;
  /// Half of the registers: with the other half for what is between, nothing goes to the stack.
  static constexpr int kVectors = kBytes / 4;
  using Floats [[gnu::vector_size(kBytes)]] = float;
  using Bits [[gnu::vector_size(kBytes)]] = std::uint32_t;
};

template <int kBytes>
[[gnu::always_inline]] inline typename Vector<kBytes>::Floats load(const float* from) {
  typename Vector<kBytes>::Floats value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}
template <int kBytes>
[[gnu::always_inline]] inline void store(float* to, typename Vector<kBytes>::Floats value) {
  std::memcpy(to, &value, sizeof(value));
}

/// Step kStep inside a vector. Lane j becomes v[j] + v[j ^ h] where j is without the bit h, else v[j ^ h] - v[j]:
/// the other lane plus or minus this one.
template <int kBytes, int kStep, std::size_t... kLane>
[[gnu::always_inline]] inline typename Vector<kBytes>::Floats step_inside(
    typename Vector<kBytes>::Floats value, std::index_sequence<kLane...> /*lanes*/) {
  using Of = Vector<kBytes>;
  constexpr typename Of::Bits kNegated{((kLane & kStep) != 0 ? 0x80000000U : 0U)...};
  const auto other = __builtin_shufflevector(value, value, (kLane ^ kStep)...);
  typename Of::Bits bits;
  std::memcpy(&bits, &value, sizeof(bits));
  bits ^= kNegated;
  std::memcpy(&value, &bits, sizeof(bits));
  return other + value;
}

/// Steps 1, 2, ..., kCount / 2 between kCount vectors.
template <int kCount, typename Floats>
[[gnu::always_inline]] inline void steps_between(Floats* values) {
#pragma GCC unroll 8
  for (int h = 1; h < kCount; h *= 2) {
#pragma GCC unroll 16
    for (int j = 0; j < kCount; ++j) {
      if ((j & h) == 0) {
        const Floats a = values[j];
        const Floats b = values[j + h];
        values[j] = a + b;
        values[j + h] = a - b;
      }
    }
  }
}

/// Steps up to half of kVectors vectors.
template <int kBytes>
[[gnu::always_inline]] inline void first_pass(float* z) {
  using Of = Vector<kBytes>;
  constexpr auto kLanes = std::make_index_sequence<Of::kLanes>{};
  typename Of::Floats values[Of::kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < Of::kVectors; ++i) {
    auto value = load<kBytes>(z + i * Of::kLanes);
    value = step_inside<kBytes, 1>(value, kLanes);
    value = step_inside<kBytes, 2>(value, kLanes);
    value = step_inside<kBytes, 4>(value, kLanes);
    if constexpr (Of::kLanes == 16) {
      value = step_inside<kBytes, 8>(value, kLanes);
    }
    values[i] = value;
  }
  steps_between<Of::kVectors>(values);
#pragma GCC unroll 16
  for (int i = 0; i < Of::kVectors; ++i) {
    store<kBytes>(z + i * Of::kLanes, values[i]);
  }
}

/// Steps h, ..., kCount / 2 * h of kCount * h elements, then times `factor`; times 1 changes nothing.
template <int kBytes, int kCount>
[[gnu::always_inline]] inline void pass(float* z, std::int64_t h, float factor) {
  using Of = Vector<kBytes>;
  for (std::int64_t at = 0; at < h; at += Of::kLanes) {
    typename Of::Floats values[kCount];
#pragma GCC unroll 16
    for (int i = 0; i < kCount; ++i) {
      values[i] = load<kBytes>(z + i * h + at);
    }
    steps_between<kCount>(values);
#pragma GCC unroll 16
    for (int i = 0; i < kCount; ++i) {
      store<kBytes>(z + i * h + at, values[i] * factor);
    }
  }
}

/// `count` parts, 2 to 16, a power of two, in passes of up to kVectors.
template <int kBytes>
[[gnu::always_inline]] inline void last_pass(float* z, std::int64_t h, std::int64_t count, float factor) {
  switch (count) {
    case 2:
      return pass<kBytes, 2>(z, h, factor);
    case 4:
      return pass<kBytes, 4>(z, h, factor);
    case 8:
      return pass<kBytes, 8>(z, h, factor);
    default:
      if constexpr (Vector<kBytes>::kVectors == 16) {
        return pass<kBytes, 16>(z, h, factor);
      }
  }
}

/// Blocks of 512 to 4096.
template <int kBytes>
void walsh_hadamard_row(float* x, std::int64_t in_features, std::int64_t block) {
  using Of = Vector<kBytes>;
  constexpr std::int64_t kFirst = Of::kVectors * Of::kLanes;
  const float factor = 1.0F / std::sqrt(static_cast<float>(block));
  for (float* z = x; z < x + in_features; z += block) {
    for (std::int64_t at = 0; at < block; at += kFirst) {
      first_pass<kBytes>(z + at);
    }
    std::int64_t h = kFirst;
    if constexpr (kFirst < 256) {
      // Eight parts of what the first pass took, 512 elements: the smallest block.
      const std::int64_t wide = Of::kVectors * kFirst;
      for (std::int64_t at = 0; at < block; at += wide) {
        pass<kBytes, Of::kVectors>(z + at, h, block == wide ? factor : 1.0F);
      }
      h = wide;
    }
    if (h < block) {
      last_pass<kBytes>(z, h, block / h, factor);
    }
  }
}

}  // namespace
}  // namespace trit::vectors
