// SPDX-License-Identifier: MIT
//
// GELU of one value, in fp32, as LibTorch's at::gelu has it: -infinity gives NaN, and what is far below zero
// gives -0.0. For the CPU and for the GPU.
//
//   exact  x / 2 * (1 + erf(x / sqrt(2)))
//   tanh   x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))
//
// With u = 2^-24 a result is within 5 u |x| + 2^-149 of the formula. Of erf: its argument z is off by 2 u
// |z|, which moves erf(z) by at most 2 u * max |z erf'(z)| = u; erff itself is off by 2 u, the sum by 2 u: 5
// u, times |x| / 2, and the product's u |y|. Of tanh: the argument's terms have one sign, so that it is off
// by 7 u |z| after its roundings, which moves tanh(z) by at most 7 u * max |z tanh'(z)| = 3.2 u; tanhf is off
// by 2 u, the sum by 2 u: 7.2 u, times |x| / 2, and u |y|. 2^-149: x / 2 of a denormal, and the last product.
#pragma once

#include <cmath>

#if defined(__CUDACC__)
#define TRIT_HOST_DEVICE __host__ __device__
#else
#define TRIT_HOST_DEVICE
#endif

namespace trit::runtime {

TRIT_HOST_DEVICE inline float gelu_exact(float x) {
  constexpr float kSqrtHalf = 0.70710678F;
  return 0.5F * x * (1.0F + erff(x * kSqrtHalf));
}

TRIT_HOST_DEVICE inline float gelu_tanh(float x) {
  constexpr float kSqrtTwoOverPi = 0.79788456F;
  constexpr float kCubic = 0.044715F;
  return 0.5F * x * (1.0F + tanhf(kSqrtTwoOverPi * (x + kCubic * (x * x * x))));
}

}  // namespace trit::runtime

#undef TRIT_HOST_DEVICE
