// SPDX-License-Identifier: MIT
//
// ggml's ternary block formats, and two of its fork for models with group scales (PQ2_0, PTQ1_0). A row is
// cut into blocks of consecutive weights; a block is its codes and a float16 d, value = t * d. ggml's own
// quantisers take the block's absmax for d; here d is the scale of the matrix, the row or the group, rounded to
// float16, and the codes are stored as they are.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace trit::io {

struct BlockFormat {
  std::string_view name;    // as ggml writes it
  std::string_view option;  // as the command line writes it
  std::uint32_t ggml_type;
  std::int64_t weights;       // in a block; rows must be a multiple
  std::int64_t bytes;         // of a block
  std::int64_t scale_offset;  // of d in the block
  /// codes [weights] (t + 1, or kInvalidCode and more) of one block.
  void (*decode)(const std::uint8_t* block, std::uint8_t* codes);
  /// The block of valid codes [weights]; d is left alone.
  void (*encode)(const std::uint8_t* codes, std::uint8_t* block);
  /// Where the codes, 2 bits each, lie in the order of the stored form (Q2_0): their offset in the block, which
  /// needs no codes one by one. -1 where they do not.
  std::int64_t fields_offset = -1;
};

extern const BlockFormat kTq1_0;
extern const BlockFormat kTq2_0;
extern const BlockFormat kQ2_0;
extern const BlockFormat kPq2_0;
extern const BlockFormat kPtq1_0;

/// All. A new one: its file beside this one, its name here and in blocks.cpp.
std::span<const BlockFormat* const> block_formats();

/// d of a block, and back.
inline std::uint16_t block_scale(const BlockFormat& format, const std::uint8_t* block) {
  const std::uint8_t* d = block + format.scale_offset;
  return static_cast<std::uint16_t>(d[0] | d[1] << 8);
}
inline void set_block_scale(const BlockFormat& format, std::uint8_t* block, std::uint16_t bits) {
  block[format.scale_offset] = static_cast<std::uint8_t>(bits & 0xffU);
  block[format.scale_offset + 1] = static_cast<std::uint8_t>(bits >> 8);
}

}  // namespace trit::io
