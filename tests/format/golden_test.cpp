// SPDX-License-Identifier: MIT
//
// The scalar definition against golden values that were computed by other programs.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "format/golden_case.h"
#include "trit/format.h"
#include "trit/quantize.h"

namespace trit::test {
namespace {

std::vector<float> forward(const GoldenCase& golden, const TernaryMatrix& matrix, Norm norm, bool bias,
                           TokenScaleGranularity scales = TokenScaleGranularity::token) {
  std::vector<float> y;
  for (std::size_t token = 0; token < 3; ++token) {
    std::vector<float> row(5);
    bit_linear_row(std::span(golden.x).subspan(token * 600, 600), matrix.view(), norm,
                   norm == Norm::rms ? std::span<const float>(golden.norm_weight) : std::span<const float>(),
                   golden.eps, bias ? std::span<const float>(golden.bias) : std::span<const float>(), row,
                   scales);
    y.insert(y.end(), row.begin(), row.end());
  }
  return y;
}

template <std::size_t kSize>
std::vector<Bits> wanted(const std::array<Bits, kSize>& bits) {
  return {bits.begin(), bits.end()};
}

std::array<int, 3> count_codes(const TernaryMatrix& matrix) {
  std::array<int, 3> counts{};
  const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(matrix.in_features));
  std::vector<std::int8_t> t(static_cast<std::size_t>(matrix.in_features));
  for (std::size_t row = 0; row < static_cast<std::size_t>(matrix.out_features); ++row) {
    unpack_row(std::span(matrix.codes).subspan(row * row_bytes, row_bytes), t);
    for (const std::int8_t value : t) {
      ++counts[static_cast<std::size_t>(value + 1)];
    }
  }
  return counts;
}

TEST(Golden, Inputs) {
  const GoldenCase golden;
  EXPECT_EQ(bits_of({golden.w[0], golden.w[1], golden.w[2]}),
            (std::vector<Bits>{0x3b630000, 0xbda60800, 0xbd43f800}));
  EXPECT_EQ(bits_of({golden.x[0], golden.x[1], golden.x[2]}),
            (std::vector<Bits>{0x3f42f000, 0x40156400, 0xc03f8400}));
  EXPECT_EQ(bits_of({golden.norm_weight[0], golden.norm_weight[1], golden.norm_weight[2]}),
            (std::vector<Bits>{0x3f34da00, 0x3f2a2400, 0x3f5b6600}));
  EXPECT_EQ(bits_of(golden.bias),
            (std::vector<Bits>{0xbe5f1000, 0x3f684c00, 0xbf256000, 0xbf72dc00, 0xbe4b5000}));
}

// 256 weights t = value % 3 - 1 as a 16 x 16 matrix.
TEST(Golden, StoredBytes) {
  GoldenGenerator generator;
  std::string hex;
  for (int row = 0; row < 16; ++row) {
    std::array<std::int8_t, 16> t;
    for (std::int8_t& value : t) {
      value = static_cast<std::int8_t>(generator.next() % 3 - 1);
    }
    if (row == 0) {
      EXPECT_EQ(t, (std::array<std::int8_t, 16>{1, 0, -1, 0, 0, 1, -1, -1, -1, -1, 0, 1, -1, -1, 1, 1}));
    }
    std::array<std::uint8_t, 4> codes;
    pack_row(t, codes);
    for (const std::uint8_t byte : codes) {
      hex += "0123456789abcdef"[byte >> 4];
      hex += "0123456789abcdef"[byte & 15];
    }
    std::array<std::int8_t, 16> back;
    unpack_row(codes, back);
    EXPECT_EQ(back, t);
  }
  EXPECT_EQ(hex,
            "31f44f5fffd17f5451f0f5747d3413c07c01cdc0cd00570f1dff57c131c0d54d437471d07074131c3d10f10451f5453d"
            "c01dcffc"
            "31454c0cfd1171fcf5f35c11");
}

TEST(Golden, Absmean) {
  const GoldenCase golden;
  const TernaryMatrix tensor = pack(golden.w, 5, 600, ScaleGranularity::tensor);
  EXPECT_EQ(bits_of(tensor.scale), std::vector<Bits>{kGoldenBeta});
  EXPECT_EQ(count_codes(tensor), kGoldenCounts);
  const TernaryMatrix rows = pack(golden.w, 5, 600, ScaleGranularity::row);
  EXPECT_EQ(bits_of(rows.scale), wanted(kGoldenRowBeta));

  GoldenGenerator generator;
  const TernaryMatrix tall = pack(generator.next(2100, 16384, 131072), 300, 7, ScaleGranularity::tensor);
  EXPECT_EQ(bits_of(tall.scale), std::vector<Bits>{0x3d7f68fc});
  EXPECT_EQ(count_codes(tall), (std::array<int, 3>{779, 532, 789}));
}

TEST(Golden, NormQuant) {
  const GoldenCase golden;
  for (std::size_t token = 0; token < 3; ++token) {
    const auto x = std::span(golden.x).subspan(token * 600, 600);
    std::vector<float> squares(256);
    for (std::size_t k = 0; k < 600; ++k) {
      squares[k % 256] = std::fma(x[k], x[k], squares[k % 256]);
    }
    const float mean_square = lane_sum(std::span<const float>(squares)) / 600;
    EXPECT_EQ(std::bit_cast<Bits>(mean_square), kGoldenMeanSquare[token]);

    std::vector<std::int8_t> q(600);
    const TokenScales scales = norm_quant_row(x, Norm::rms, golden.norm_weight, golden.eps, q);
    EXPECT_EQ(std::bit_cast<Bits>(scales.rstd), kGoldenRstd[token]);
    EXPECT_EQ(std::bit_cast<Bits>(scales.scale), kGoldenScale[token]);
    int sum = 0;
    for (const std::int8_t code : q) {
      sum += code;
    }
    EXPECT_EQ(sum, kGoldenCodeSums[token]);
    if (token == 0) {
      EXPECT_TRUE(std::equal(kGoldenCodes.begin(), kGoldenCodes.end(), q.begin()));
    }
  }
}

TEST(Golden, Layer) {
  const GoldenCase golden;
  const TernaryMatrix tensor = pack(golden.w, 5, 600, ScaleGranularity::tensor);
  const TernaryMatrix rows = pack(golden.w, 5, 600, ScaleGranularity::row);
  const std::vector<float> y = forward(golden, tensor, Norm::rms, true);
  EXPECT_EQ(bits_of(y), wanted(kGoldenY));
  EXPECT_EQ(bits_of(forward(golden, tensor, Norm::none, false)), wanted(kGoldenYPlain));
  EXPECT_EQ(bits_of(forward(golden, rows, Norm::rms, false)), wanted(kGoldenYPerRow));
  for (std::size_t n = 0; n < 5; ++n) {
    EXPECT_EQ(float_to_bfloat16(y[n]), kGoldenYBfloat16[n]);
    EXPECT_EQ(float_to_float16(y[n]), kGoldenYFloat16[n]);
  }
}

TEST(Golden, GroupScales) {
  const GoldenCase golden;
  const TernaryMatrix matrix = pack(golden.w, 5, 600, ScaleGranularity::group, kGoldenGroup);
  EXPECT_EQ(bits_of(matrix.scale), wanted(kGoldenGroupBeta));
  EXPECT_EQ(count_codes(matrix), kGoldenGroupCounts);
  EXPECT_EQ(bits_of(forward(golden, matrix, Norm::rms, true)), wanted(kGoldenGroupY));
  EXPECT_EQ(bits_of(forward(golden, matrix, Norm::rms, true, TokenScaleGranularity::group)),
            wanted(kGoldenGroupYTokenGroups));
  std::vector<float> scale;
  for (std::size_t token = 0; token < 3; ++token) {
    std::vector<std::int8_t> q(600);
    std::vector<float> of_token(5);
    norm_quant_groups_row(std::span(golden.x).subspan(token * 600, 600), Norm::rms, golden.norm_weight,
                          golden.eps, kGoldenGroup, q, of_token);
    scale.insert(scale.end(), of_token.begin(), of_token.end());
  }
  EXPECT_EQ(bits_of(scale), wanted(kGoldenGroupScale));
}

TEST(Golden, BadRows) {
  GoldenCase golden;
  const TernaryMatrix tensor = pack(golden.w, 5, 600, ScaleGranularity::tensor);
  golden.x[2 * 600] = 1e20F;
  const std::vector<float> huge = forward(golden, tensor, Norm::none, true);
  EXPECT_EQ(bits_of({huge.begin() + 10, huge.end()}), wanted(kGoldenYHuge));
  golden.x[3] = std::numeric_limits<float>::quiet_NaN();
  golden.x[600 + 7] = -std::numeric_limits<float>::infinity();
  for (const float value : forward(golden, tensor, Norm::rms, true)) {
    EXPECT_TRUE(std::isnan(value));
  }
}

}  // namespace
}  // namespace trit::test
