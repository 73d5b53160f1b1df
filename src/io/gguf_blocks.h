// SPDX-License-Identifier: MIT
//
// A ternary matrix in ggml's blocks. Every block has a scale d: if the blocks of each row agree, the matrix has
// a scale per row (or one), else one per block, which is a group. d < 0 is the scale -d with all codes negated,
// d = 0 makes a block of zeros, whatever its codes.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "io/codecs/blocks.h"

namespace trit::io::gguf {

class BlockMatrix {
 public:
  /// `blocks` are rows of `in_features` weights, a multiple of format.weights. `what` starts error messages.
  BlockMatrix(const BlockFormat& format, std::span<const std::byte> blocks, std::int64_t in_features,
              std::string what)
      : format_(format),
        blocks_(reinterpret_cast<const std::uint8_t*>(blocks.data())),
        in_row_(in_features / format.weights),
        rows_(static_cast<std::int64_t>(blocks.size()) / format.bytes / in_row_),
        what_(std::move(what)) {}

  /// Weights of a group, those of a block; 0 if the blocks of each row agree. Reads the scales up to the first
  /// row whose blocks do not. Throws Error, naming row and block, for one that is NaN or infinite.
  std::int64_t group() const;
  /// Of a matrix with group() = 0: [1] if all rows agree, else [N]. A row of zeros has the scale of the first
  /// other row, or 1.
  std::vector<float> row_scales() const;
  /// [rows, groups] of a matrix with groups; 1 for a block of zeros. Throws Error as group() does.
  void group_scales(std::int64_t first_row, std::int64_t rows, std::span<float> scales) const;
  /// The stored form of a row, packed_row_bytes(in_features) bytes. Returns the first column whose bits are not
  /// a code. `codes` [in_features] is used on the way.
  std::optional<std::size_t> read_row(std::int64_t row, std::span<std::uint8_t> codes,
                                      std::span<std::uint8_t> packed) const;

 private:
  /// found(index of the block in its row, its bytes, |d| as float16, d < 0).
  template <typename Found>
  void for_each_block(std::int64_t row, const Found& found) const;
  /// Codes t + 1 [in_features] of a row, kInvalidCode and more for bits that are not a code.
  void decode_row(std::int64_t row, std::span<std::uint8_t> codes) const;
  /// The same as read_row where the codes lie in the order of the stored form; false if some are invalid.
  bool copy_row(std::int64_t row, std::span<std::uint8_t> packed) const;
  float checked(std::int64_t row, std::int64_t block, std::uint16_t d) const;

  const BlockFormat& format_;
  const std::uint8_t* blocks_;
  std::int64_t in_row_;  // blocks
  std::int64_t rows_;
  std::string what_;
};

}  // namespace trit::io::gguf
