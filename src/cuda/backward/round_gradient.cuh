// SPDX-License-Identifier: MIT
//
// Gradients to int8 codes: trit/gradient.h on a GPU, and the transposition of 4 x 4 bytes that the products
// over tokens need.
#pragma once

#include "cuda/common/float_bits.cuh"
#include "cuda/common/platform.cuh"
#include "trit/cuda_backward.h"
#include "trit/gradient.h"

namespace trit::cuda {

__device__ __forceinline__ unsigned magnitude_bits(float value) {
  return __float_as_uint(value) & 0x7fffffffU;
}

/// gradient_scale of a magnitude's bits.
__device__ __forceinline__ GradientScale gradient_scale_of(unsigned largest) {
  if (largest >= 0x7f800000U) {
    return {0.0F, __uint_as_float(0x7fc00000U)};
  }
  const float magnitude = __uint_as_float(largest);
  const float absmax = magnitude > kMinGradient ? magnitude : kMinGradient;
  return {__fdiv_rn(127.0F, absmax), __fdiv_rn(absmax, 127.0F)};
}

/// The random words of one launch.
struct RandomStream {
  std::uint64_t seed;
  std::uint64_t offset;
  __device__ static RandomStream of(const GpuGradientRounding& rounding) {
    RandomStream stream{rounding.seed, rounding.offset};
    if (rounding.seed_pointer != nullptr) {
      stream.seed = static_cast<std::uint64_t>(*rounding.seed_pointer);
      stream.offset += static_cast<std::uint64_t>(*rounding.offset_pointer);
    }
    return stream;
  }
};

/// Philox4x32-10.
__device__ __forceinline__ uint4 philox_words(const RandomStream& stream, std::uint64_t counter) {
  auto key0 = static_cast<std::uint32_t>(stream.seed);
  auto key1 = static_cast<std::uint32_t>(stream.seed >> 32U);
  uint4 words = {static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32U),
                 static_cast<std::uint32_t>(stream.offset), static_cast<std::uint32_t>(stream.offset >> 32U)};
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53U} * words.x;
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57U} * words.z;
    words = {
        static_cast<std::uint32_t>(product1 >> 32U) ^ words.y ^ key0, static_cast<std::uint32_t>(product1),
        static_cast<std::uint32_t>(product0 >> 32U) ^ words.w ^ key1, static_cast<std::uint32_t>(product0)};
    key0 += 0x9E3779B9U;
    key1 += 0xBB67AE85U;
  }
  return words;
}

/// trit::gradient_counter, which device code cannot call.
__device__ __forceinline__ std::uint64_t counter_of(std::int64_t token, std::int64_t output,
                                                    std::int64_t out_features) {
  return static_cast<std::uint64_t>(token * ceil_div<std::int64_t>(out_features, 4) + output / 4);
}

/// Four neighbouring gradients, from output 4 i of a row on, to four bytes; factor[j] belongs to v[j].
/// kStochastic: `counter` is counter_of the first.
template <bool kStochastic>
__device__ __forceinline__ std::uint32_t round_four(const float* v, const float* factor,
                                                    const RandomStream& stream, std::uint64_t counter) {
  std::uint32_t random[4] = {};
  if constexpr (kStochastic) {
    const uint4 words = philox_words(stream, counter);
    random[0] = words.x;
    random[1] = words.y;
    random[2] = words.z;
    random[3] = words.w;
  }
  std::uint32_t bytes = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float scaled = __fmul_rn(v[i], factor[i]);
    float code = scaled;
    if constexpr (kStochastic) {
      const float below = floorf(scaled);
      const float uniform = __fmul_rn(static_cast<float>(random[i] >> 8U), 0x1p-24F);
      code = __fadd_rn(below, uniform < __fsub_rn(scaled, below) ? 1.0F : 0.0F);
      code = min(max(code, -127.0F), 127.0F);
    }
    // Added to 1.5 * 2^23 a float is rounded half to even, and its low byte is the code: |v * factor| is at
    // most 127 within two roundings, so the code is in range.
    const std::uint32_t byte = __float_as_uint(__fadd_rn(code, 0x1.8p23F)) & 0xffU;
    bytes |= (factor[i] == 0.0F ? 0U : byte) << (8 * i);
  }
  return bytes;
}

/// columns[j] byte i = rows[i] byte j.
__device__ __forceinline__ void transpose_bytes(const std::uint32_t (&rows)[4], std::uint32_t (&columns)[4]) {
  const std::uint32_t even01 = (rows[0] & 0x00ff00ffU) | (rows[1] & 0x00ff00ffU) << 8U;
  const std::uint32_t odd01 = (rows[0] >> 8U & 0x00ff00ffU) | (rows[1] & 0xff00ff00U);
  const std::uint32_t even23 = (rows[2] & 0x00ff00ffU) | (rows[3] & 0x00ff00ffU) << 8U;
  const std::uint32_t odd23 = (rows[2] >> 8U & 0x00ff00ffU) | (rows[3] & 0xff00ff00U);
  columns[0] = (even01 & 0xffffU) | even23 << 16U;
  columns[1] = (odd01 & 0xffffU) | odd23 << 16U;
  columns[2] = even01 >> 16U | (even23 & 0xffff0000U);
  columns[3] = odd01 >> 16U | (odd23 & 0xffff0000U);
}

}  // namespace trit::cuda
