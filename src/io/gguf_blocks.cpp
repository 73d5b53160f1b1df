// SPDX-License-Identifier: MIT
#include "io/gguf_blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "io/codecs/codes.h"
#include "trit/error.h"
#include "trit/format.h"

namespace trit::io::gguf {

template <typename Found>
void BlockMatrix::for_each_block(std::int64_t row, const Found& found) const {
  const std::uint8_t* block = blocks_ + row * in_row_ * format_.bytes;
  for (std::int64_t b = 0; b < in_row_; ++b, block += format_.bytes) {
    const std::uint16_t d = block_scale(format_, block);
    found(b, block, static_cast<std::uint16_t>(d & 0x7fffU), d > 0x8000U);
  }
}

float BlockMatrix::checked(std::int64_t row, std::int64_t block, std::uint16_t d) const {
  const float value = float16_to_float(d);
  if (!std::isfinite(value)) {
    throw Error(what_ + "row " + std::to_string(row) + ", block " + std::to_string(block) + ": scale " +
                std::to_string(value) + ", wanted a finite value");
  }
  return value;
}

std::int64_t BlockMatrix::group() const {
  for (std::int64_t row = 0; row < rows_; ++row) {
    std::uint16_t scale = 0;
    bool one = true;
    for_each_block(row, [&](std::int64_t b, const std::uint8_t*, std::uint16_t d, bool) {
      checked(row, b, d);
      one = one && (d == 0 || scale == 0 || d == scale);
      scale = d == 0 ? scale : d;
    });
    if (!one) {
      return format_.weights;
    }
  }
  return 0;
}

std::vector<float> BlockMatrix::row_scales() const {
  std::vector<std::uint16_t> rows(static_cast<std::size_t>(rows_));
  for (std::size_t row = 0; row < rows.size(); ++row) {
    for_each_block(static_cast<std::int64_t>(row),
                   [&](std::int64_t b, const std::uint8_t*, std::uint16_t d, bool) {
                     checked(static_cast<std::int64_t>(row), b, d);
                     rows[row] = d == 0 ? rows[row] : d;
                   });
  }
  const auto first = std::ranges::find_if(rows, [](std::uint16_t d) { return d != 0; });
  if (first == rows.end()) {
    return {1.0F};
  }
  std::ranges::replace(rows, std::uint16_t{0}, std::uint16_t{*first});
  if (std::ranges::all_of(rows, [&](std::uint16_t d) { return d == rows[0]; })) {
    return {float16_to_float(rows[0])};
  }
  std::vector<float> scale(rows.size());
  std::ranges::transform(rows, scale.begin(), float16_to_float);
  return scale;
}

void BlockMatrix::group_scales(std::int64_t first_row, std::int64_t rows, std::span<float> scales) const {
  for (std::int64_t row = 0; row < rows; ++row) {
    for_each_block(first_row + row, [&](std::int64_t b, const std::uint8_t*, std::uint16_t d, bool) {
      scales[static_cast<std::size_t>(row * in_row_ + b)] = d == 0 ? 1.0F : checked(first_row + row, b, d);
    });
  }
}

void BlockMatrix::decode_row(std::int64_t row, std::span<std::uint8_t> codes) const {
  for_each_block(row, [&](std::int64_t b, const std::uint8_t* block, std::uint16_t d, bool negative) {
    std::uint8_t* const out = codes.data() + b * format_.weights;
    if (d == 0) {
      std::fill_n(out, format_.weights, std::uint8_t{1});
      return;
    }
    format_.decode(block, out);
    if (negative) {
      std::transform(out, out + format_.weights, out, [](std::uint8_t code) {
        return code > 2 ? kInvalidCode : static_cast<std::uint8_t>(2 - code);
      });
    }
  });
}

bool BlockMatrix::copy_row(std::int64_t row, std::span<std::uint8_t> packed) const {
  std::uint64_t bad = 0;
  for_each_block(row, [&](std::int64_t b, const std::uint8_t* block, std::uint16_t d, bool negative) {
    std::uint8_t* out = packed.data() + b * format_.weights / 4;
    for (std::int64_t at = 0; at < format_.weights / 4; at += 8, out += 8) {
      std::uint64_t fields = 0;
      std::memcpy(&fields, block + format_.fields_offset + at, sizeof(fields));
      bad |= d == 0 ? 0 : threes(fields);
      fields = d == 0 ? 0 : stored_fields(fields);
      fields = negative ? negated_fields(fields) : fields;
      std::memcpy(out, &fields, sizeof(fields));
    }
  });
  return bad == 0;
}

std::optional<std::size_t> BlockMatrix::read_row(std::int64_t row, std::span<std::uint8_t> codes,
                                                 std::span<std::uint8_t> packed) const {
  if (format_.fields_offset >= 0 && copy_row(row, packed)) {
    return std::nullopt;
  }
  decode_row(row, codes);
  return pack_codes(codes, packed);
}

}  // namespace trit::io::gguf
