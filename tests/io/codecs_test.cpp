// SPDX-License-Identifier: MIT
//
// Every codec against 256 weights whose bytes were made by the reference implementation of each format, both
// ways; every byte value; and codes that stand for no weight.
#include <gtest/gtest.h>

#include <array>
#include <random>
#include <string>
#include <vector>

#include "format/golden_case.h"
#include "io/codecs/blocks.h"
#include "io/codecs/codes.h"
#include "io/codecs/huggingface.h"
#include "io/codecs/i2_s.h"
#include "io/codecs/torchao.h"
#include "trit/format.h"

namespace trit::io {
namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes from_hex(const std::string& hex) {
  Bytes bytes(hex.size() / 2);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::uint8_t>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
  }
  return bytes;
}

/// Codes t + 1 of the 256 golden weights: a value of the generator mod 3.
Bytes golden_codes() {
  test::GoldenGenerator generator;
  Bytes codes(256);
  for (std::uint8_t& code : codes) {
    code = static_cast<std::uint8_t>(generator.next() % 3);
  }
  return codes;
}

const Bytes kStored = from_hex(
    "31f44f5fffd17f5451f0f5747d3413c07c01cdc0cd00570f1dff57c131c0d54d437471d07074131c3d10f10451f5453dc01dcffc"
    "3145"
    "4c0cfd1171fcf5f35c11");
const Bytes kTq1_0Bytes = from_hex(
    "f47341a786d30a0c4e4166b42e47bae454050a3fd59db829073755dc7ac8d6bcf62a4392aa96c367e9902a429cab5975bbcb1a17"
    "0038");
const Bytes kTq2_0Bytes = from_hex(
    "9a05886925161010288891829458520aa84010485659521480a4a8268506569298111106a546a8568a45108255090604a995081a"
    "296a"
    "1022580996a9994092550038");
const Bytes kQ2_0Codes = from_hex(
    "460990a0002680a9a6050a8982496415815612151255a8506200a81646152a92948986258589646142650659a60a9a4215621001"
    "469a"
    "9151026686010a04a166");
const Bytes kPq2_0Bytes = from_hex(
    "0038460990a0002680a9a6050a8982496415815612151255a8506200a81646152a92"
    "0038948986258589646142650659a60a9a4215621001469a9151026686010a04a166");
const Bytes kPtq1_0Bytes = from_hex(
    "c65f13719dd83a0516175de72b51e8f7c041a84a5d5a7672fab10038"
    "37765df484f416efc4823ece8369ee2ae35b1d95deb685d1a8460038");
const Bytes kI2_sBytes = from_hex(
    "a65022695894040428224682162585a02a01042195658514021a2a9852909586264444905a912a95a2510482556090106a5620a4"
    "68a9"
    "04882560966a66018655");
const Bytes kHuggingFaceBytes = from_hex(
    "465150299926846428104522541426029850046096a546a44018689a51026656aa010a169151a050a25a088859261412aa942026"
    "2566"
    "040168299aa1a9418558");
const Bytes kTorchaoBytes = from_hex(
    "4c1ff1f5ff47fd15450f5f1d7d1cc4033d4073037300d5f074ffd5434c035771c11d4d070d1dc4347c044f10455f517c0374f33f"
    "4c51"
    "31307f444d3f5fcf3544");

TEST(Codecs, StoredFormGolden) {
  const Bytes codes = golden_codes();
  Bytes packed(64);
  EXPECT_FALSE(pack_codes(codes, packed));
  EXPECT_EQ(packed, kStored);
  Bytes back(256);
  unpack_codes(kStored, back);
  EXPECT_EQ(back, codes);
  EXPECT_FALSE(find_invalid(kStored, 256));
}

TEST(Codecs, BlockFormatsGolden) {
  Bytes q2_0;
  for (int block = 0; block < 4; ++block) {
    q2_0.insert(q2_0.end(), {0x00, 0x38});
    q2_0.insert(q2_0.end(), kQ2_0Codes.begin() + 16 * block, kQ2_0Codes.begin() + 16 * block + 16);
  }
  const std::array<std::pair<const BlockFormat*, const Bytes*>, 5> cases{{{&kTq1_0, &kTq1_0Bytes},
                                                                          {&kTq2_0, &kTq2_0Bytes},
                                                                          {&kQ2_0, &q2_0},
                                                                          {&kPq2_0, &kPq2_0Bytes},
                                                                          {&kPtq1_0, &kPtq1_0Bytes}}};
  for (const auto& [format, golden] : cases) {
    SCOPED_TRACE(format->name);
    const Bytes codes = golden_codes();
    Bytes bytes;
    Bytes back;
    for (std::int64_t first = 0; first < 256; first += format->weights) {
      Bytes block(static_cast<std::size_t>(format->bytes));
      format->encode(codes.data() + first, block.data());
      set_block_scale(*format, block.data(), float_to_float16(0.5F));
      bytes.insert(bytes.end(), block.begin(), block.end());
      Bytes decoded(static_cast<std::size_t>(format->weights));
      const std::uint8_t* stored = golden->data() + first / format->weights * format->bytes;
      format->decode(stored, decoded.data());
      back.insert(back.end(), decoded.begin(), decoded.end());
      EXPECT_EQ(float16_to_float(block_scale(*format, stored)), 0.5F);
    }
    EXPECT_EQ(bytes, *golden);
    EXPECT_EQ(back, codes);
  }
}

TEST(Codecs, I2_sGolden) {
  const Bytes codes = golden_codes();
  Bytes blocks(64);
  i2_s::encode(codes, blocks);
  EXPECT_EQ(blocks, kI2_sBytes);
  for (std::int64_t first = 0; first < 256; ++first) {
    for (const std::int64_t count : {1, 7, 127, 128, 129, 256}) {
      if (first + count <= 256) {
        Bytes part(static_cast<std::size_t>(count));
        i2_s::decode(kI2_sBytes, first, part);
        EXPECT_EQ(part, Bytes(codes.begin() + first, codes.begin() + first + count)) << first << ' ' << count;
      }
    }
  }
}

TEST(Codecs, HuggingFaceGolden) {
  const Bytes codes = golden_codes();
  const auto row = [&](int r) { return std::span(codes).subspan(static_cast<std::size_t>(16 * r), 16); };
  Bytes bytes(64);
  Bytes stored(64);
  for (int r = 0; r < 4; ++r) {
    huggingface::encode_rows(row(r), row(4 + r), row(8 + r), row(12 + r),
                             std::span(bytes).subspan(16 * r, 16));
    for (int field = 0; field < 4; ++field) {
      EXPECT_FALSE(huggingface::decode_row(std::span(kHuggingFaceBytes).subspan(16 * r, 16), field,
                                           std::span(stored).subspan(4 * (4 * field + r), 4)));
    }
  }
  EXPECT_EQ(bytes, kHuggingFaceBytes);
  EXPECT_EQ(stored, kStored);
}

TEST(Codecs, TorchaoGolden) {
  Bytes reversed(64);
  torchao::reverse_fields(kTorchaoBytes, reversed);
  EXPECT_EQ(reversed, kStored);
  torchao::reverse_fields(kStored, reversed);
  EXPECT_EQ(reversed, kTorchaoBytes);
}

TEST(Codecs, PackCodesAgreesWithPackRowAtEveryLength) {
  std::mt19937 random(20240607);
  for (std::size_t k = 1; k <= 70; ++k) {
    std::vector<std::int8_t> t(k);
    Bytes codes(k);
    for (std::size_t i = 0; i < k; ++i) {
      codes[i] = static_cast<std::uint8_t>(random() % 3);
      t[i] = static_cast<std::int8_t>(codes[i] - 1);
    }
    Bytes wanted((k + 3) / 4);
    Bytes packed(wanted.size(), 0xee);
    pack_row(t, wanted);
    EXPECT_FALSE(pack_codes(codes, packed));
    EXPECT_EQ(packed, wanted);
    Bytes back(k);
    unpack_codes(packed, back);
    EXPECT_EQ(back, codes);
  }
}

TEST(Codecs, TheFirstInvalidCodeIsFound) {
  for (std::size_t k = 1; k <= 40; ++k) {
    for (std::size_t at = 0; at < k; ++at) {
      Bytes codes(k, 1);
      Bytes packed((k + 3) / 4);
      codes[at] = static_cast<std::uint8_t>(at % 2 == 0 ? 3 : 200);
      codes[k - 1] = k - 1 == at ? codes[at] : 3;
      EXPECT_EQ(pack_codes(codes, packed), at);

      Bytes valid(k, 1);
      ASSERT_FALSE(pack_codes(valid, packed));
      EXPECT_FALSE(find_invalid(packed, k));
      packed[at / 4] = static_cast<std::uint8_t>(packed[at / 4] | 2U << (2 * (at % 4)));
      EXPECT_EQ(find_invalid(packed, k), at);

      for (int field = 0; field < 4; ++field) {
        Bytes bytes(k, static_cast<std::uint8_t>(1U << (2 * field)));
        EXPECT_FALSE(huggingface::decode_row(bytes, field, packed));
        bytes[at] = static_cast<std::uint8_t>(3U << (2 * field));
        EXPECT_EQ(huggingface::decode_row(bytes, field, packed), at);
      }
    }
    if (k % 4 != 0) {
      Bytes packed((k + 3) / 4);
      packed.back() = 0xc0;
      EXPECT_EQ(find_invalid(packed, k), k);
    }
  }
}

/// Every byte of a block of base-3 digits: what encodes to it, or invalid.
TEST(Codecs, BytesThatStandForNoDigitsAreInvalid) {
  struct Case {
    const BlockFormat* format;
    int five_digits;  // bytes with so many; the rest has four
    std::vector<int> positions;
  };
  for (const Case& one :
       {Case{&kTq1_0, 48, {0, 31, 32, 47, 48, 51}}, {&kPtq1_0, 24, {0, 15, 16, 23, 24, 25}}}) {
    const auto weights = static_cast<std::size_t>(one.format->weights);
    for (const int position : one.positions) {
      int valid = 0;
      for (int byte = 0; byte < 256; ++byte) {
        const Bytes zero(weights, 1);
        Bytes block(static_cast<std::size_t>(one.format->bytes));
        one.format->encode(zero.data(), block.data());
        block[static_cast<std::size_t>(position)] = static_cast<std::uint8_t>(byte);
        Bytes codes(weights);
        one.format->decode(block.data(), codes.data());
        Bytes packed(weights / 4);
        if (!pack_codes(codes, packed)) {
          ++valid;
          Bytes again(block.size());
          one.format->encode(codes.data(), again.data());
          EXPECT_EQ(again, block) << one.format->name << ", byte " << byte << " at " << position;
        }
      }
      EXPECT_EQ(valid, position < one.five_digits ? 243 : 81);
    }
  }
}

}  // namespace
}  // namespace trit::io
