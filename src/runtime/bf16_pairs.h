// SPDX-License-Identifier: MIT
//
// A float as the sum of two bf16 numbers, for a machine whose bf16 matrix unit is many times faster than its
// fp32 arithmetic (AMX: 16 times).
//
// x ~ h + m with h = bf16(x), m = bf16(x - h), both rounded to nearest even: |m| <= 2^-8 |x|, and what is
// left is at most 2^-16 |x|. Of the four products of two such numbers three are taken,
//     x * w ~ x_h w_h + x_h w_m + x_m w_h,    to 3 * 2^-16 |x w| at worst,
// and 4e-6 of a sum's size on average (288 terms of normal random numbers; fp32 sums: 2e-7, TF32: 3e-4). With
// three numbers and six products the average is fp32's, and the network's second convolution takes 36 us an
// image instead of 13 (fp32 without AMX: 50).
//
// Pairs cannot carry a value that is NaN, infinite or rounds to infinity (from 3.396e38 on): infinity * w_h
// + infinity * w_m is NaN where the signs differ. The outputs that read such a value are computed again in
// fp32 (bf16_repair.h), and a layer with such a weight does not run in pairs. Numbers below 2^-126 count as
// zero, in factors, products and sums.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "trit/parallel.h"

namespace trit::runtime {

struct Bf16Pair {
  std::uint16_t h, m;
};

inline constexpr std::int64_t kBf16Products = 3;

/// Both numbers' bits.
Bf16Pair bf16_pair(float x);

/// The pair's numbers in the order of the three products, as one factor and as the other.
inline std::array<std::uint16_t, kBf16Products> input_factors(Bf16Pair x) { return {x.h, x.h, x.m}; }
inline std::array<std::uint16_t, kBf16Products> weight_factors(Bf16Pair w) { return {w.h, w.m, w.h}; }

/// y[i * 3 * channels + p * channels + c] = input_factors(bf16_pair(x[i * channels + c]))[p]: what a
/// convolution of 3 * channels channels multiplies by the weights' factors.
void split_pixels(Parallel& parallel, const float* x, std::int64_t pixels, std::int64_t channels,
                  std::uint16_t* y);

}  // namespace trit::runtime
