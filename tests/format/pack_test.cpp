// SPDX-License-Identifier: MIT
//
// The stored form: pack, unpack and what check() refuses.
#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <string>

#include "trit/error.h"
#include "trit/format.h"

namespace trit {
namespace {

std::string error_of(const TernaryMatrix& matrix) {
  try {
    check(matrix.view(), "fc1.weight");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// The message holds every one of `parts`.
void expect_error(const TernaryMatrix& matrix, std::initializer_list<const char*> parts) {
  const std::string message = error_of(matrix);
  for (const char* part : parts) {
    EXPECT_NE(message.find(part), std::string::npos) << "'" << part << "' is not in: " << message;
  }
}

// 3 rows of 6 columns: 2 bytes a row, of which the last 4 bits are padding.
TernaryMatrix good() { return {3, 6, {0x31, 0x04, 0xff, 0x0f, 0x00, 0x00}, {0.5F}}; }

TEST(Pack, TheExampleOfTheFormat) {
  const std::array<std::int8_t, 6> t = {1, 0, -1, 0, 0, 1};
  std::array<std::uint8_t, 2> codes;
  pack_row(t, codes);
  EXPECT_EQ(codes, (std::array<std::uint8_t, 2>{0x31, 0x04}));
}

TEST(Pack, RoundTripOfEveryLength) {
  std::mt19937 random(7);
  for (std::int64_t length = 1; length <= 300; ++length) {
    std::vector<std::int8_t> t(static_cast<std::size_t>(length));
    for (std::int8_t& value : t) {
      value = static_cast<std::int8_t>(static_cast<int>(random() % 3) - 1);
    }
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(packed_row_bytes(length)), 0xaa);
    pack_row(t, codes);
    std::vector<std::int8_t> back(t.size(), 99);
    unpack_row(codes, back);
    ASSERT_EQ(back, t) << length;
    check({1, length, codes, std::array{1.0F}}, "row");  // the padding is zero
  }
}

TEST(Check, GroupScales) {
  TernaryMatrix matrix{2, 70, std::vector<std::uint8_t>(36), {1, 2, 3, 4}, 64};
  check(matrix.view(), "w");
  EXPECT_EQ(matrix.view().granularity(), ScaleGranularity::group);
  matrix.scale[3] = -1;
  expect_error(matrix, {"fc1.weight_scale", "row 1, group 1", "-1", "finite and positive"});
  matrix.scale = {1, 2, 3};
  expect_error(matrix, {"fc1.weight_scale: 3 values, wanted 2 rows of 2"});
  matrix.scale = {1};
  expect_error(matrix, {"fc1.weight_scale: 1 values, wanted 2 rows of 2"});
  matrix.group = 48;
  expect_error(matrix, {"groups of 48 inputs, wanted a multiple of 32"});
  matrix.group = -32;
  expect_error(matrix, {"groups of -32 inputs"});
}

TEST(Check, AcceptsAGoodMatrix) {
  TernaryMatrix matrix = good();
  EXPECT_EQ(error_of(matrix), "");
  EXPECT_EQ(matrix.view().granularity(), ScaleGranularity::tensor);
  matrix.scale = {1, 2, 3};
  EXPECT_EQ(error_of(matrix), "");
  EXPECT_EQ(matrix.view().granularity(), ScaleGranularity::row);
}

TEST(Check, Shapes) {
  TernaryMatrix matrix = good();
  matrix.out_features = 0;
  expect_error(matrix, {"fc1.weight", "[0, 6]"});
  matrix = good();
  matrix.in_features = -1;
  expect_error(matrix, {"fc1.weight", "[3, -1]"});
  matrix = good();
  matrix.codes.pop_back();
  expect_error(matrix, {"fc1.weight", "5 bytes", "3 rows of 2"});
  matrix = good();
  matrix.in_features = 9;
  expect_error(matrix, {"6 bytes", "3 rows of 3"});
  matrix = good();
  matrix.out_features = std::numeric_limits<std::int64_t>::max();
  expect_error(matrix, {"6 bytes"});
}

TEST(Check, Scales) {
  TernaryMatrix matrix = good();
  matrix.scale = {1, 2};
  expect_error(matrix, {"fc1.weight_scale", "2 values", "1 or 3"});
  for (const float bad :
       {0.0F, -1.0F, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    matrix.scale = {1, bad, 3};
    expect_error(matrix, {"fc1.weight_scale", "value 1"});
  }
}

TEST(Check, Codes) {
  for (int field = 0; field < 4; ++field) {
    TernaryMatrix matrix = good();
    matrix.codes[2] = static_cast<std::uint8_t>((matrix.codes[2] & ~(3U << (2 * field))) | 2U << (2 * field));
    expect_error(matrix, {"fc1.weight", "row 1", "columns 0", "code 2"});
  }
  for (const unsigned padding : {0x10U, 0x30U, 0x40U, 0xc0U}) {
    TernaryMatrix matrix = good();
    matrix.codes[5] = static_cast<std::uint8_t>(padding);
    expect_error(matrix, {"row 2", "columns 4", "padding"});
  }
}

}  // namespace
}  // namespace trit
