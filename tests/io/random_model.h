// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "trit/format.h"
#include "trit/io.h"

namespace trit::test {

/// A matrix of random codes; scales spread over float16's normal range unless `wide`.
inline TernaryMatrix random_matrix(std::mt19937& random, std::int64_t rows, std::int64_t columns,
                                   bool row_scale, bool wide = false) {
  TernaryMatrix matrix{rows, columns, {}, {}};
  const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(columns));
  matrix.codes.resize(static_cast<std::size_t>(rows) * row_bytes);
  std::vector<std::int8_t> t(static_cast<std::size_t>(columns));
  for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
    for (std::int8_t& weight : t) {
      weight = static_cast<std::int8_t>(static_cast<int>(random() % 3) - 1);
    }
    pack_row(t, std::span(matrix.codes).subspan(row * row_bytes, row_bytes));
  }
  std::uniform_real_distribution<float> exponent(wide ? -100.0F : -13.0F, wide ? 100.0F : 15.0F);
  matrix.scale.resize(row_scale ? static_cast<std::size_t>(rows) : 1);
  for (float& scale : matrix.scale) {
    scale = std::exp2(exponent(random));
  }
  return matrix;
}

/// A matrix with a scale for each group of `group` inputs, float16 values from its whole normal range.
inline TernaryMatrix random_grouped(std::mt19937& random, std::int64_t rows, std::int64_t columns,
                                    std::int64_t group) {
  TernaryMatrix matrix = random_matrix(random, rows, columns, false);
  matrix.group = group;
  matrix.scale.resize(static_cast<std::size_t>(rows * groups_of(columns, group)));
  for (float& scale : matrix.scale) {
    scale = float16_to_float(static_cast<std::uint16_t>(0x0400 + random() % 0x7800));
  }
  return matrix;
}

/// The matrix as a checkpoint holds it.
inline TernaryMatrix read_matrix(const io::Checkpoint& checkpoint, std::string_view name) {
  const io::TensorInfo* tensor = checkpoint.find(name);
  if (tensor == nullptr || tensor->kind != io::TensorKind::ternary) {
    return {};
  }
  TernaryMatrix matrix{
      tensor->shape[0], tensor->shape[1], {}, checkpoint.scale(*tensor), checkpoint.group(*tensor)};
  matrix.codes.resize(static_cast<std::size_t>(tensor->shape[0] * packed_row_bytes(tensor->shape[1])));
  checkpoint.read_codes(*tensor, 0, tensor->shape[0], matrix.codes);
  return matrix;
}

/// Options for GGUF; without `block_format` the default.
inline io::ConvertOptions to_gguf(const std::string& block_format = "") {
  io::ConvertOptions options;
  options.to = io::Format::gguf;
  options.block_format = block_format;
  return options;
}

}  // namespace trit::test
