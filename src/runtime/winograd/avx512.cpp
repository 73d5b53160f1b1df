// SPDX-License-Identifier: MIT
#include <immintrin.h>

#include "runtime/winograd/kernel.h"

namespace trit::runtime::winograd {
namespace {

struct Isa {
  static constexpr int kLanes = 16;
  /// A step of a product: 16 sums, 2 registers of weights, and a broadcast operand in each instruction.
  static constexpr int kTilesOfBlock = 8;
  static __m512 broadcast(float x) { return _mm512_set1_ps(x); }
  /// The second where either is NaN.
  static __m512 max(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
  static bool any_above(__m512 x, float limit) {
    return _mm512_cmp_ps_mask(x, _mm512_set1_ps(limit), _CMP_NLE_UQ) != 0;
  }
};
__attribute__((always_inline)) inline __m512 fma(__m512 a, __m512 b, __m512 c) {
  return _mm512_fmadd_ps(a, b, c);
}

#include "runtime/winograd/tile_rows.h"

}  // namespace

constinit const Kernel k_avx512 = {
    .name = "avx512", .block = kBlock, .scratch_bytes = scratch_bytes, .run = run};

}  // namespace trit::runtime::winograd
