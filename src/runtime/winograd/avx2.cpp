// SPDX-License-Identifier: MIT
#include <immintrin.h>

#include "runtime/winograd/kernel.h"

namespace trit::runtime::winograd {
namespace {

struct Isa {
  static constexpr int kLanes = 8;
  /// A step of a product: 12 sums, 2 registers of weights, and a broadcast one of the other two.
  static constexpr int kTilesOfBlock = 6;
  static __m256 broadcast(float x) { return _mm256_set1_ps(x); }
  /// The second where either is NaN.
  static __m256 max(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }
  static bool any_above(__m256 x, float limit) {
    return _mm256_movemask_ps(_mm256_cmp_ps(x, _mm256_set1_ps(limit), _CMP_NLE_UQ)) != 0;
  }
};

#include "runtime/winograd/tile_rows.h"

}  // namespace

constinit const Kernel k_avx2 = {.name = "avx2", .block = kBlock, .scratch_bytes = scratch_bytes, .run = run};

}  // namespace trit::runtime::winograd
