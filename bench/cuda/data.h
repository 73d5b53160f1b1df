// SPDX-License-Identifier: MIT
//
// Random operands on the GPU, and an exact reference that knows nothing of the kernels under test: a dot
// product over plain int8 weights.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace trit::bench {

/// t in {-1, 0, +1}, each as likely.
void random_ternary(std::int8_t* t, std::int64_t count, std::uint64_t seed, cudaStream_t stream);
/// q in -127 .. 127.
void random_int8(std::int8_t* q, std::int64_t count, std::uint64_t seed, cudaStream_t stream);
/// Uniform in (low, high).
void random_float(float* x, std::int64_t count, float low, float high, std::uint64_t seed,
                  cudaStream_t stream);
/// t [N, K] to the stored form, [N, ceil(K / 4)].
void pack_codes(const std::int8_t* t, std::int64_t out_features, std::int64_t in_features,
                std::uint8_t* codes, cudaStream_t stream);

enum class Element { int8, bfloat16, float8 };  // float8: e4m3
/// values of int8 as another type; exact, except that float8 holds q / 16, rounded.
void convert(const std::int8_t* from, std::int64_t count, Element type, void* to, cudaStream_t stream);

enum class Result { int32, bfloat16, scaled_bfloat16 };
/// The byte to fill y with before a product. No result consists of it: NaN, or a sum that needs K >= 10^6.
constexpr int poison_byte(Result result) { return result == Result::int32 ? 0x80 : 0xff; }
/// Of `samples` outputs at random places of y [M, N] how many are wrong, plus how many 32-bit words of the
/// whole of y still are poison, with which the caller has filled it.
///   int32             sum over k of q[m, k] t[n, k], exact
///   scaled_bfloat16   bfloat16((float)sum * s[m] * beta), every step rounded: equal bits
///   bfloat16          operands as convert() gives them for `type`, within 2 % of sqrt(sum of squares)
std::int64_t count_wrong(const void* y, Result result, Element type, const std::int8_t* q,
                         const std::int8_t* t, const float* row_scale, float beta, std::int64_t tokens,
                         std::int64_t out_features, std::int64_t in_features, int samples,
                         cudaStream_t stream);

}  // namespace trit::bench
