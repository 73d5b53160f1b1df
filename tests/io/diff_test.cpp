// SPDX-License-Identifier: MIT
//
// diff: what differs between two checkpoints.
#include <gtest/gtest.h>

#include <cstring>

#include "io/random_model.h"
#include "trit/io.h"
#include "trit/safetensors.h"

namespace trit::io {
namespace {

using test::random_matrix;

TEST(Diff, SaysWhatDiffers) {
  std::mt19937 random(1);
  const TernaryMatrix matrix = random_matrix(random, 7, 9, false);
  const std::vector<float> values{1, 2, std::nanf("")};
  MemoryCheckpoint a;
  a.add("same.weight", matrix);
  a.add("codes.weight", matrix);
  a.add("scale.weight", matrix);
  a.add("values", {3}, values);
  a.add("only.a", {1}, std::span(values).first(1));
  a.add("shape", {2, 1}, std::span(values).first(2));
  a.add("kind.weight", matrix);
  MemoryCheckpoint b;
  b.add("same.weight", matrix);
  TernaryMatrix changed = matrix;
  std::vector<std::int8_t> t(9);
  unpack_row(std::span(changed.codes).subspan(6 * 3, 3), t);
  t[8] = static_cast<std::int8_t>(t[8] == 1 ? -1 : t[8] + 1);
  t[0] = static_cast<std::int8_t>(-t[0] == t[0] ? 1 : -t[0]);
  pack_row(t, std::span(changed.codes).subspan(6 * 3, 3));
  b.add("codes.weight", changed);
  changed = matrix;
  changed.scale = std::vector<float>(7, matrix.scale[0]);
  changed.scale[3] *= 1.001F;
  b.add("scale.weight", changed);
  b.add("values", {3}, std::vector<float>{1, 2.5F, std::nanf("")});
  b.add("only.b", {1}, std::span(values).first(1));
  b.add("shape", {1, 2}, std::span(values).first(2));
  b.add("kind.weight", {7, 9}, std::vector<float>(63));
  const auto differences = diff(a, b);
  std::map<std::string, std::string> found;
  for (const Difference& difference : differences) {
    found[difference.name] = difference.what;
  }
  EXPECT_EQ(found.size(), 7U);
  EXPECT_TRUE(found["codes.weight"].starts_with("2 of 63 codes; ") &&
              found["codes.weight"].ends_with(" at [6, 0]"))
      << found["codes.weight"];
  EXPECT_NE(found["scale.weight"].find("in row 3, 1 of 7 rows"), std::string::npos) << found["scale.weight"];
  EXPECT_EQ(found["values"], "1 of 3 elements, by 0.5 at most; 2 against 2.5 at [1]");
  EXPECT_EQ(found["only.a"], "only in the first");
  EXPECT_EQ(found["only.b"], "only in the second");
  EXPECT_EQ(found["shape"], "shape: [2, 1] and [1, 2]");
  EXPECT_EQ(found["kind.weight"], "ternary in the first, floating in the second");
  EXPECT_EQ(diff(a, b, {.tolerance = 0.3}).size(), 5U);
  EXPECT_TRUE(diff(a, a).empty());
}

/// 2, NaN, infinity, -infinity, 0, -0 as an element of each floating type.
const std::map<std::string, std::vector<std::uint64_t>> kSpecialBits{
    {"F64", {0x4000000000000000, 0x7ff8000000000000, 0x7ff0000000000000, 0xfff0000000000000, 0, 1ULL << 63}},
    {"F32", {0x40000000, 0x7fc00000, 0x7f800000, 0xff800000, 0, 0x80000000}},
    {"F16", {0x4000, 0x7e00, 0x7c00, 0xfc00, 0, 0x8000}},
    {"BF16", {0x4000, 0x7fc0, 0x7f80, 0xff80, 0, 0x8000}}};
const std::vector<std::string> kSpecialTexts{"2", "NaN", "inf", "-inf", "0", "-0"};

/// [2, 3], 2 everywhere but at [1, 2].
std::unique_ptr<Checkpoint> special(const std::string& type, std::size_t value) {
  const std::vector<std::uint64_t>& bits = kSpecialBits.at(type);
  const std::size_t size = type == "F64" ? 8 : type == "F32" ? 4 : 2;
  std::vector<std::byte> bytes(6 * size);
  for (std::size_t i = 0; i < 6; ++i) {
    std::memcpy(&bytes[i * size], &bits[i == 5 ? value : 0], size);  // little endian
  }
  auto checkpoint = std::make_unique<MemoryCheckpoint>();
  checkpoint->add("values", type, {2, 3}, std::move(bytes));
  return checkpoint;
}

TEST(Diff, SpecialValuesOfEveryFloatingType) {
  for (const auto& [type_a, bits_a] : kSpecialBits) {
    for (const auto& [type_b, bits_b] : kSpecialBits) {
      for (std::size_t x = 0; x < kSpecialTexts.size(); ++x) {
        for (std::size_t y = 0; y < kSpecialTexts.size(); ++y) {
          for (const double tolerance : {0.0, 0.5}) {
            SCOPED_TRACE(type_a + " " + kSpecialTexts[x] + ", " + type_b + " " + kSpecialTexts[y]);
            const auto found = diff(*special(type_a, x), *special(type_b, y), {.tolerance = tolerance});
            const bool zeros = x >= 4 && y >= 4;
            ASSERT_EQ(found.size(), x == y || zeros ? 0U : 1U);
            if (found.empty()) {
              continue;
            }
            const bool finite = (x == 0 || x >= 4) && (y == 0 || y >= 4);
            EXPECT_EQ(found[0].what, std::string("1 of 6 elements") + (finite ? ", by 2 at most; " : "; ") +
                                         kSpecialTexts[x] + " against " + kSpecialTexts[y] + " at [1, 2]");
          }
        }
      }
    }
  }
}

/// A float64 tensor of any shape.
std::unique_ptr<Checkpoint> doubles(const std::vector<double>& values,
                                    const std::vector<std::int64_t>& shape) {
  const auto bytes = std::as_bytes(std::span(values));
  auto checkpoint = std::make_unique<MemoryCheckpoint>();
  checkpoint->add("values", "F64", shape, {bytes.begin(), bytes.end()});
  return checkpoint;
}

TEST(Diff, Float64IsNotRounded) {
  const auto what = [](double x, double y, double tolerance) {
    const auto found = diff(*doubles({x}, {}), *doubles({y}, {}), {.tolerance = tolerance});
    return found.empty() ? "" : found[0].what;
  };
  EXPECT_EQ(what(1, 1.5, 0), "1 of 1 elements, by 0.5 at most; 1 against 1.5");
  EXPECT_NE(what(1, 1 + 1e-12, 0), "");
  EXPECT_EQ(what(1, 1 + 1e-12, 1e-9), "");
  EXPECT_NE(what(1e300, 2e300, 0.25), "");  // both infinite as float32
  EXPECT_EQ(what(1e300, 2e300, 0.75), "");
  EXPECT_NE(what(1.7e308, -1.7e308, 1), "");  // their difference overflows
}

TEST(Diff, ShowsTheFirstPairThatIsNotFinite) {
  const double nan = std::nan("");
  const auto found = diff(*doubles({1, 2, nan, 4}, {4}), *doubles({1.5, 2, 3, nan}, {4}));
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].what, "3 of 4 elements, by 0.5 at most; NaN against 3 at [2]");
}

TEST(Diff, OtherElementsByTheirBytes) {
  for (const auto& [type, size] : {std::pair{"U8", 1}, {"I64", 8}, {"F8_E4M3", 1}}) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(6 * size));
    MemoryCheckpoint a;
    a.add("values", type, {2, 3}, bytes);
    for (const std::size_t place : {std::size_t{4}, std::size_t{5}}) {
      bytes[place * static_cast<std::size_t>(size)] = std::byte{0x7f};
    }
    MemoryCheckpoint b;
    b.add("values", type, {2, 3}, bytes);
    EXPECT_TRUE(diff(b, b).empty()) << type;
    const auto found = diff(a, b, {.tolerance = 1});
    ASSERT_EQ(found.size(), 1U) << type;
    EXPECT_EQ(found[0].what, "2 of 6 elements; the first at [1, 1]");
  }
}

}  // namespace
}  // namespace trit::io
