// SPDX-License-Identifier: MIT
//
// CRC-32C against its definition, bit by bit, at every length that the instruction's three parts divide
// differently.
#include "trit/crc32c.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>
#include <string_view>
#include <vector>

#include "base/crc32c_ways.h"
#include "io/codes_scan.h"

namespace trit {
namespace {

std::uint32_t by_definition(std::span<const std::byte> bytes) {
  std::uint32_t crc = ~0U;
  for (const std::byte byte : bytes) {
    crc ^= std::to_integer<std::uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc >> 1) ^ ((crc & 1U) != 0 ? 0x82f63b78U : 0U);
    }
  }
  return ~crc;
}

TEST(Crc32c, KnownText) {
  EXPECT_EQ(crc32c(std::as_bytes(std::span(std::string_view("123456789")))), 0xe3069283U);
  EXPECT_EQ(crc32c({}), 0U);
}

TEST(Crc32c, EveryLength) {
  constexpr unsigned kSeed = 20240612;
  std::mt19937 random(kSeed);
  std::vector<std::byte> bytes(3 * 3 * 8192 + 100);
  for (std::byte& byte : bytes) {
    byte = static_cast<std::byte>(random());
  }
  std::vector<std::size_t> lengths;
  for (std::size_t around : {std::size_t{0}, std::size_t{512}, std::size_t{3 * 256}, std::size_t{3 * 8192},
                             std::size_t{2 * 3 * 8192}}) {
    for (std::size_t more = 0; more < 40; ++more) {
      lengths.push_back(around + more);
      lengths.push_back(around < 40 ? more : around - more);
    }
  }
  for (const std::size_t length : lengths) {
    const auto text = std::span(bytes).first(length);
    const std::uint32_t whole = by_definition(text);
    EXPECT_EQ(crc32c(text), whole) << length << " bytes, seed " << kSeed;
    EXPECT_EQ(~crc32c_ways::tables(text, ~0U), whole) << length;
    if (crc32c_ways::has_instruction()) {
      EXPECT_EQ(~crc32c_ways::instruction(text, ~0U), whole) << length;
    }
    if (crc32c_ways::can_fold()) {
      EXPECT_EQ(~crc32c_ways::folding(text, ~0U), whole) << length;
    }
    const std::size_t cut = random() % (length + 1);
    const std::uint32_t first = crc32c(text.first(cut));
    EXPECT_EQ(crc32c(text.subspan(cut), first), whole) << length << ", cut at " << cut;
    EXPECT_EQ(crc32c_combine(first, crc32c(text.subspan(cut)), length - cut), whole)
        << length << ", cut at " << cut;
  }
}

// The pass over stored codes that looks for code 2 as well: each field of each byte, at lengths that divide
// into folds of 256 bytes and not.
TEST(Crc32c, ScanOfCodes) {
  constexpr unsigned kSeed = 20251125;
  std::mt19937 random(kSeed);
  const auto good_byte = [&] {
    unsigned byte = 0;
    for (unsigned field = 0; field < 4; ++field) {
      byte |= std::array{0U, 1U, 3U}[random() % 3] << 2 * field;
    }
    return static_cast<std::uint8_t>(byte);
  };
  std::vector<std::size_t> lengths{0, 1, 7, 255, 256, 257, 511, 512, 513, 768, 1024, 1031, 20000};
  for (int i = 0; i < 30; ++i) {
    lengths.push_back(random() % 3000);
  }
  for (const std::size_t length : lengths) {
    std::vector<std::uint8_t> codes(length);
    std::ranges::generate(codes, good_byte);
    const io::CodesScan before{crc32c(std::as_bytes(std::span("before"))), false};
    const auto expect = [&](bool has_two) {
      const io::CodesScan seen = io::scan_codes(codes, before);
      EXPECT_EQ(seen.crc, crc32c(std::as_bytes(std::span(codes)), before.crc))
          << length << ", seed " << kSeed;
      EXPECT_EQ(seen.has_two, has_two) << length << ", seed " << kSeed;
      EXPECT_TRUE(io::scan_codes(codes, {before.crc, true}).has_two);
    };
    expect(false);
    for (std::size_t at = 0; at < length; at += length < 1100 ? 1 : 1 + random() % 97) {
      const std::uint8_t good = codes[at];
      const auto field = static_cast<unsigned>(random() % 4);
      codes[at] = static_cast<std::uint8_t>((good & ~(3U << 2 * field)) | 2U << 2 * field);
      expect(true);
      codes[at] = good;
    }
  }
}

}  // namespace
}  // namespace trit
