// SPDX-License-Identifier: MIT
#include "torch/row_kernels.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

// One copy of a function per instruction set, chosen when the library is loaded. The arithmetic is the same
// in each: no contraction (-ffp-contract=off), a fixed order of additions.
#if defined(__x86_64__) && defined(__GNUC__)
#define TRIT_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define TRIT_CLONES
#endif

namespace trit::torch_layer {
namespace {

constexpr std::int64_t kSumLanes = 256;
using Lanes = std::array<float, kSumLanes>;

[[gnu::always_inline]] inline float tree_sum(Lanes& lanes) {
  for (std::int64_t step = kSumLanes / 2; step >= 1; step /= 2) {
    for (std::int64_t j = 0; j < step; ++j) {
      lanes[j] += lanes[j + step];
    }
  }
  return lanes[0];
}

// sum over k of term(k); term must be pure arithmetic so that the loop over the lanes vectorises.
template <typename Term>
[[gnu::always_inline]] inline float sum_of(std::int64_t features, const Term& term) {
  Lanes lanes{};
  std::int64_t k = 0;
  for (; k + kSumLanes <= features; k += kSumLanes) {
    for (std::int64_t j = 0; j < kSumLanes; ++j) {
      lanes[j] += term(k + j);
    }
  }
  for (std::int64_t j = 0; k + j < features; ++j) {
    lanes[j] += term(k + j);
  }
  return tree_sum(lanes);
}

// Four bfloat16 weights for every byte of codes: 0 is 0x0000, +1 (code 1) 0x3f80, -1 (code 3) 0xbf80.
constexpr auto kBrainWeights = [] {
  std::array<std::array<std::uint16_t, 4>, 256> table{};
  for (std::size_t byte = 0; byte < table.size(); ++byte) {
    for (std::size_t i = 0; i < 4; ++i) {
      const std::size_t code = (byte >> (2 * i)) & 3U;
      table[byte][i] = code == 0 ? 0 : code == 1 ? 0x3f80 : 0xbf80;
    }
  }
  return table;
}();

}  // namespace

TRIT_CLONES
float rms_norm_row(const float* x, const float* weight, float eps, std::int64_t features, float* y) {
  const float mean =
      sum_of(features, [=](std::int64_t k) { return x[k] * x[k]; }) / static_cast<float>(features);
  const float rstd = 1.0F / std::sqrt(mean + eps);
  if (weight == nullptr) {
    for (std::int64_t k = 0; k < features; ++k) {
      y[k] = x[k] * rstd;
    }
  } else {
    for (std::int64_t k = 0; k < features; ++k) {
      y[k] = (x[k] * rstd) * weight[k];
    }
  }
  return rstd;
}

TRIT_CLONES
void rms_norm_backward_row(const float* grad, const float* x, const float* weight, float rstd,
                           std::int64_t features, float* grad_x, float* grad_weight) {
  if (grad_weight != nullptr) {
    for (std::int64_t k = 0; k < features; ++k) {
      grad_weight[k] += grad[k] * (x[k] * rstd);
    }
  }
  if (grad_x == nullptr) {
    return;
  }
  const float scale = (rstd * rstd) * rstd / static_cast<float>(features);
  if (weight == nullptr) {
    const float along = scale * sum_of(features, [=](std::int64_t k) { return grad[k] * x[k]; });
    for (std::int64_t k = 0; k < features; ++k) {
      grad_x[k] = rstd * grad[k] - along * x[k];
    }
  } else {
    const float along =
        scale * sum_of(features, [=](std::int64_t k) { return (grad[k] * weight[k]) * x[k]; });
    for (std::int64_t k = 0; k < features; ++k) {
      grad_x[k] = rstd * (grad[k] * weight[k]) - along * x[k];
    }
  }
}

TRIT_CLONES
void unpack_bfloat16_row(const std::uint8_t* codes, std::int64_t count, std::uint16_t scale,
                         std::uint16_t* w) {
  std::int64_t k = 0;
  for (; k + 4 <= count; k += 4) {
    std::memcpy(w + k, kBrainWeights[codes[k / 4]].data(), sizeof(kBrainWeights[0]));
  }
  for (; k < count; ++k) {
    w[k] = kBrainWeights[codes[k / 4]][static_cast<std::size_t>(k % 4)];
  }
  constexpr std::uint16_t kOne = 0x3f80, kSign = 0x8000;
  if (scale == kOne) {
    return;
  }
  const std::uint16_t zero = (scale & 0x7f80U) == 0x7f80U ? 0x7fc0 : 0;  // 0 * NaN and 0 * infinity are NaN
  for (k = 0; k < count; ++k) {
    const auto sign = static_cast<std::uint16_t>(w[k] & kSign);
    w[k] = w[k] == 0 ? zero : static_cast<std::uint16_t>(sign | scale);
  }
}

TRIT_CLONES
void add_row(const float* part, std::int64_t features, float* total) {
  for (std::int64_t k = 0; k < features; ++k) {
    total[k] += part[k];
  }
}

namespace {

// round_gradient for a factor that is not 0: added to 1.5 * 2^23 a float is rounded half to even, and its low
// byte is the code.
[[gnu::always_inline]] inline std::int8_t rounded(float v, float factor) {
  const auto bits = std::bit_cast<std::uint32_t>(v * factor + 0x1.8p23F);
  return static_cast<std::int8_t>(factor == 0.0F ? 0U : bits & 0xffU);
}
[[gnu::always_inline]] inline std::uint32_t magnitude(float v) {
  return std::bit_cast<std::uint32_t>(v) & 0x7fffffffU;
}

}  // namespace

TRIT_CLONES
std::uint32_t largest_gradient(const float* grad, const float* weight, std::int64_t count) {
  std::uint32_t largest = 0;
  if (weight == nullptr) {
    for (std::int64_t n = 0; n < count; ++n) {
      largest = std::max(largest, magnitude(grad[n]));
    }
  } else {
    for (std::int64_t n = 0; n < count; ++n) {
      largest = std::max(largest, magnitude(grad[n] * weight[n]));
    }
  }
  return largest;
}

TRIT_CLONES
void largest_gradients(const float* grad, float scale, std::int64_t count, std::uint32_t* largest) {
  for (std::int64_t n = 0; n < count; ++n) {
    largest[n] = std::max(largest[n], magnitude(grad[n] * scale));
  }
}

TRIT_CLONES
std::int32_t round_gradients(const float* grad, const float* weight, float factor, std::int64_t count,
                             std::int8_t* q) {
  if (weight == nullptr) {
    for (std::int64_t n = 0; n < count; ++n) {
      q[n] = rounded(grad[n], factor);
    }
  } else {
    for (std::int64_t n = 0; n < count; ++n) {
      q[n] = rounded(grad[n] * weight[n], factor);
    }
  }
  std::int32_t sum = 0;
  for (std::int64_t n = 0; n < count; ++n) {
    sum += q[n];
  }
  return sum;
}

TRIT_CLONES
void round_gradients(const float* grad, float scale, const float* factors, std::int64_t count,
                     std::int8_t* q) {
  for (std::int64_t n = 0; n < count; ++n) {
    q[n] = rounded(grad[n] * scale, factors[n]);
  }
}

TRIT_CLONES
void scale_row(const std::int32_t* sums, float scale, std::int64_t count, float* to) {
  for (std::int64_t k = 0; k < count; ++k) {
    to[k] = static_cast<float>(sums[k]) * scale;
  }
}

// The accumulation of XXH3 (github.com/Cyan4973/xxHash): 32 x 32 -> 64 bit products of keyed halves, the word
// itself into the neighbour lane so that a zero factor loses nothing, and a mixing step every 16 stripes of
// 64 bytes. Keys differ from stripe to stripe, so that exchanging two changes the sum.
TRIT_CLONES
std::uint64_t fingerprint(const void* data, std::size_t bytes, std::uint64_t seed) {
  constexpr std::uint64_t kMultiplier = 0x9e3779b97f4a7c15U;
  constexpr std::uint64_t kPrime = 0x9e3779b1U;
  constexpr std::size_t kStripeWords = 8;
  constexpr std::size_t kStripe = kStripeWords * sizeof(std::uint64_t);
  using Stripe = std::array<std::uint64_t, kStripeWords>;
  Stripe sums{};
  Stripe keys{};
  for (std::size_t i = 0; i < kStripeWords; ++i) {
    keys[i] = sums[i] = (seed * kStripeWords + i + 1) * kMultiplier;
  }
  const auto absorb = [&](const std::byte* stripe) {
    Stripe words;
    std::memcpy(words.data(), stripe, kStripe);
    for (std::size_t i = 0; i < kStripeWords; ++i) {
      const std::uint64_t keyed = words[i] ^ keys[i];
      sums[i] += words[i ^ 1U] + (keyed & 0xffffffffU) * (keyed >> 32);
      keys[i] += kMultiplier;
    }
  };
  const auto mix = [&] {
    for (std::size_t i = 0; i < kStripeWords; ++i) {
      sums[i] = (sums[i] ^ (sums[i] >> 47) ^ keys[i]) * kPrime;
    }
  };
  const auto* at = static_cast<const std::byte*>(data);
  std::size_t left = bytes;
  for (std::size_t stripe = 1; left >= kStripe; ++stripe, left -= kStripe, at += kStripe) {
    absorb(at);
    if (stripe % 16 == 0) {
      mix();
    }
  }
  std::array<std::byte, kStripe> tail{};
  std::memcpy(tail.data(), at, left);
  absorb(tail.data());
  mix();
  std::uint64_t result = bytes * kMultiplier;
  for (const std::uint64_t sum : sums) {
    result = std::rotl(result ^ sum, 27) * kMultiplier;
    result ^= result >> 32;
  }
  return result;
}

}  // namespace trit::torch_layer
