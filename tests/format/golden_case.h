// SPDX-License-Identifier: MIT
//
// The small case of docs/numerics.md, written down as bits: what every backend must return.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <vector>

namespace trit::test {

/// The generator of the golden values: s = (1103515245 s + 12345) mod 2^31 from s = 1; a value is s >> 16.
class GoldenGenerator {
 public:
  int next() {
    state_ = (1103515245U * state_ + 12345U) & 0x7fffffffU;
    return static_cast<int>(state_ >> 16);
  }
  std::vector<float> next(std::size_t count, float offset, float divisor, float add = 0) {
    std::vector<float> values(count);
    for (float& value : values) {
      value = (static_cast<float>(next()) - offset) / divisor + add;
    }
    return values;
  }

 private:
  std::uint32_t state_ = 1;
};

/// N = 5, K = 600, M = 3, eps = 1e-6.
struct GoldenCase {
  static constexpr std::int64_t out_features = 5;
  static constexpr std::int64_t in_features = 600;
  static constexpr std::int64_t tokens = 3;
  static constexpr float eps = 1e-6F;
  std::vector<float> w, x, norm_weight, bias;

  GoldenCase() {
    GoldenGenerator generator;
    w = generator.next(5 * 600, 16384, 131072);
    x = generator.next(3 * 600, 16384, 4096);
    norm_weight = generator.next(600, 0, 32768, 0.5F);
    bias = generator.next(5, 16384, 16384);
  }
};

using Bits = std::uint32_t;

/// beta per tensor and per row; the number of codes -1, 0, +1 per tensor.
inline constexpr Bits kGoldenBeta = 0x3d7fca57;
inline constexpr std::array<Bits, 5> kGoldenRowBeta = {0x3d7a536d, 0x3d8059ae, 0x3d807b16, 0x3d81ad09,
                                                       0x3d7f9cab};
inline constexpr std::array<int, 3> kGoldenCounts = {1107, 763, 1130};

/// Statistics of x with RMSNorm.
inline constexpr std::array<Bits, 3> kGoldenMeanSquare = {0x40a34aef, 0x40b105bb, 0x40a92bb0};
inline constexpr std::array<Bits, 3> kGoldenRstd = {0x3ee2a72c, 0x3ed9afa9, 0x3edeae3c};
inline constexpr std::array<Bits, 3> kGoldenScale = {0x3ca5a960, 0x3c9c0a13, 0x3ca43659};
inline constexpr std::array<int, 8> kGoldenCodes = {12, 34, -56, -2, -50, 51, 103, 16};
inline constexpr std::array<int, 3> kGoldenCodeSums = {747, 191, 622};

/// y [3, 5] with norm and bias, per tensor, and its first row in 16 bits.
inline constexpr std::array<Bits, 15> kGoldenY = {0x3f50b020, 0xbeca0948, 0xbea00d24, 0xbf063ba2, 0x3f819adb,
                                                  0xbfa70bcc, 0x3f07c403, 0x3f7b3386, 0xc0162a84, 0xbe85ef50,
                                                  0xbde6c5d8, 0xbebfb7b4, 0xbff671e4, 0xbfc8959d, 0xbf38c845};
inline constexpr std::array<std::uint16_t, 5> kGoldenYBfloat16 = {0x3f51, 0xbeca, 0xbea0, 0xbf06, 0x3f82};
inline constexpr std::array<std::uint16_t, 5> kGoldenYFloat16 = {0x3a86, 0xb650, 0xb500, 0xb832, 0x3c0d};
/// y without norm and bias, per tensor.
inline constexpr std::array<Bits, 15> kGoldenYPlain = {
    0x3ffe3fb0, 0xbfb4be41, 0x3faaecf9, 0x3f09f2e8, 0x3ff671f2, 0xc0526b72, 0xbfde16ba, 0x409a5538,
    0xc04de713, 0xc00e89d0, 0x3f917049, 0xc05641fc, 0xc05baaec, 0x3e02d82d, 0xbe12f2c8};
/// y with norm, without bias, per row.
inline constexpr std::array<Bits, 15> kGoldenYPerRow = {
    0x3f73ef12, 0xbf968aae, 0x3eab7af3, 0x3ee22d92, 0x3f9ae92d, 0xbf63fa29, 0xbed5eb3e, 0x3fd13dea,
    0xbfc147ca, 0xbd810634, 0xbcf0dbe2, 0xbfa900de, 0xbfa481d7, 0xbf3ebb59, 0xbf05dc5a};
/// The last row of y where x[2][0] = 1e20, without norm, with bias, per tensor.
inline constexpr std::array<Bits, 5> kGoldenYHuge = {0xbe5f1000, 0xdead548f, 0x5ead548f, 0xdead548f,
                                                     0x5ead548f};

/// The same case with groups of 128 inputs, the last one of 88 (tests/format/golden_groups.py).
inline constexpr std::int64_t kGoldenGroup = 128;
inline constexpr std::array<Bits, 25> kGoldenGroupBeta = {
    0x3d7c3960, 0x3d602bb0, 0x3d8f9ff8, 0x3d6c1f70, 0x3d7c8f74, 0x3d81dd58, 0x3d7bdd30,
    0x3d843a78, 0x3d825f60, 0x3d722a74, 0x3d80f188, 0x3d785200, 0x3d813d98, 0x3d83aaa0,
    0x3d805a80, 0x3d7f0b70, 0x3d82d6d8, 0x3d808048, 0x3d82db18, 0x3d831bdd, 0x3d876068,
    0x3d7e6410, 0x3d794750, 0x3d80d360, 0x3d719c46};
inline constexpr std::array<int, 3> kGoldenGroupCounts = {1114, 752, 1134};
/// Scales of the activations' groups, with RMSNorm.
inline constexpr std::array<Bits, 15> kGoldenGroupScale = {
    0x3c97d572, 0x3c9dbf26, 0x3c899862, 0x3c9b90d6, 0x3ca5a960, 0x3c8f473f, 0x3c93580a, 0x3c962d84,
    0x3c9c0a13, 0x3c900d57, 0x3ca43659, 0x3ca2adec, 0x3ca0e0cf, 0x3c980e62, 0x3ca23a7b};
/// y [3, 5] with norm and bias, and a scale for each token, or for each token and group.
inline constexpr std::array<Bits, 15> kGoldenGroupY = {
    0x3f744ba4, 0xbe87f430, 0xbec5dcb9, 0xbef033b5, 0x3f8f0318, 0xbf808294, 0x3efd337a, 0x3f8b2ced,
    0xc01df506, 0xbeb335da, 0xbe5d64ce, 0xbf1ff062, 0xbffb5622, 0xbfe0d028, 0xbf720e36};
inline constexpr std::array<Bits, 15> kGoldenGroupYTokenGroups = {
    0x3f75997c, 0xbe85e9a4, 0xbec9a278, 0xbef5aad7, 0x3f8db9e7, 0xbf7e15db, 0x3f01c890, 0x3f8b4860,
    0xc01e565d, 0xbeaf3978, 0xbe5d3d43, 0xbf1e5e3c, 0xbffaf5f3, 0xbfe14970, 0xbf74a1d8};

inline std::vector<Bits> bits_of(const std::vector<float>& values) {
  std::vector<Bits> bits;
  for (const float value : values) {
    bits.push_back(std::bit_cast<Bits>(value));
  }
  return bits;
}

}  // namespace trit::test
