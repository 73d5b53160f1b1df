// SPDX-License-Identifier: MIT
//
// Counter-based random numbers: number i of a stream is a pure function of (seed, stream, epoch, i). A run that
// resumes in the middle of an epoch, or prepares its images in another order, therefore draws the same ones.
#pragma once

#include <cstdint>

namespace trit::train {

class CounterRandom {
 public:
  /// What the numbers are for: streams are independent of each other.
  enum class Stream : std::uint64_t { order = 1, augmentation = 2 };

  constexpr CounterRandom(std::uint64_t seed, Stream stream, std::int64_t epoch)
      : key_(mix(mix(mix(seed) + static_cast<std::uint64_t>(stream)) + static_cast<std::uint64_t>(epoch))) {}

  /// 64 random bits.
  constexpr std::uint64_t at(std::uint64_t i) const { return mix(key_ + i * 0x9e3779b97f4a7c15ULL); }

  /// Uniform in [0, n), n <= 2^32; the bias is below n / 2^32.
  constexpr std::uint32_t below(std::uint64_t i, std::uint64_t n) const {
    return static_cast<std::uint32_t>(((at(i) >> 32) * n) >> 32);
  }

 private:
  /// SplitMix64 (Steele, Lea, Flood 2014): its finaliser over a Weyl sequence.
  static constexpr std::uint64_t mix(std::uint64_t x) {
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
  }

  std::uint64_t key_;
};

}  // namespace trit::train
