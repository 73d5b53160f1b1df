// SPDX-License-Identifier: MIT
//
// The stored form, rows-2bit (format.h): pack, unpack, check.
#include <cmath>
#include <cstring>
#include <string>

#include "format/code_two.h"
#include "trit/error.h"
#include "trit/format.h"

namespace trit {
namespace {

/// High bit set, low bit clear: code 2. Also of eight bytes at once: no bit that leaves a byte counts.
constexpr std::uint64_t twos(std::uint64_t bits) { return bits & ~(bits << 1) & 0xaaaaaaaaaaaaaaaaU; }

/// Not zero where a code is 2. No early exit, so that the compiler tests whole vectors of bytes.
[[gnu::always_inline]] inline std::uint64_t twos_of_inline(std::span<const std::uint8_t> bytes) {
  std::uint64_t bad = 0;
  std::size_t at = 0;
  for (; at + 8 <= bytes.size(); at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, sizeof(word));
    bad |= twos(word);
  }
  for (; at < bytes.size(); ++at) {
    bad |= twos(bytes[at]);
  }
  return bad;
}

#if defined(__x86_64__)
[[gnu::target("avx2")]] std::uint64_t twos_of_avx2(std::span<const std::uint8_t> bytes) {
  return twos_of_inline(bytes);
}
#endif

std::uint64_t twos_of(std::span<const std::uint8_t> bytes) {
#if defined(__x86_64__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2") != 0;
  if (has_avx2) {
    return twos_of_avx2(bytes);
  }
#endif
  return twos_of_inline(bytes);
}

void check_scale(const TernaryView& matrix, const std::string& tensor) {
  const auto rows = static_cast<std::size_t>(matrix.out_features);
  if (matrix.group != 0 && !is_group_size(matrix.group)) {
    throw Error(tensor + "_scale: groups of " + std::to_string(matrix.group) +
                " inputs, wanted a multiple of " + std::to_string(kGroupStep));
  }
  const auto groups = static_cast<std::size_t>(groups_of(matrix.in_features, matrix.group));
  const bool is_per_tensor = matrix.group == 0 && matrix.scale.size() == 1;
  if (!is_per_tensor && matrix.scale.size() != rows * groups) {
    throw Error(tensor + "_scale: " + std::to_string(matrix.scale.size()) + " values, wanted " +
                (matrix.group == 0 ? "1 or " + std::to_string(rows)
                                   : std::to_string(rows) + " rows of " + std::to_string(groups)));
  }
  for (std::size_t i = 0; i < matrix.scale.size(); ++i) {
    if (!std::isfinite(matrix.scale[i]) || matrix.scale[i] <= 0) {
      const std::string where =
          matrix.group == 0 ? "value " + std::to_string(i)
                            : "row " + std::to_string(i / groups) + ", group " + std::to_string(i % groups);
      throw Error(tensor + "_scale: " + where + " is " + std::to_string(matrix.scale[i]) +
                  ", wanted finite and positive");
    }
  }
}

}  // namespace

bool has_code_two(std::span<const std::uint8_t> codes) { return twos_of(codes) != 0; }

void pack_row(std::span<const std::int8_t> t, std::span<std::uint8_t> codes) {
  for (std::size_t j = 0; j < codes.size(); ++j) {
    unsigned byte = 0;
    for (std::size_t i = 0; i < 4 && 4 * j + i < t.size(); ++i) {
      byte |= (static_cast<unsigned>(t[4 * j + i]) & 3U) << (2 * i);
    }
    codes[j] = static_cast<std::uint8_t>(byte);
  }
}

void unpack_row(std::span<const std::uint8_t> codes, std::span<std::int8_t> t) {
  for (std::size_t k = 0; k < t.size(); ++k) {
    const unsigned code = (codes[k / 4] >> (2 * (k % 4))) & 3U;
    t[k] = static_cast<std::int8_t>(code == 3U ? -1 : static_cast<int>(code));
  }
}

void check(const TernaryView& matrix, std::string_view name) {
  const std::string tensor(name);
  const std::int64_t rows = matrix.out_features;
  const std::int64_t columns = matrix.in_features;
  if (rows < 1 || columns < 1) {
    throw Error(tensor + ": shape [" + std::to_string(rows) + ", " + std::to_string(columns) +
                "], wanted at least [1, 1]");
  }
  const std::int64_t row_bytes = packed_row_bytes(columns);
  if (matrix.codes.size() / static_cast<std::size_t>(row_bytes) != static_cast<std::size_t>(rows) ||
      matrix.codes.size() % static_cast<std::size_t>(row_bytes) != 0) {
    throw Error(tensor + ": " + std::to_string(matrix.codes.size()) + " bytes of codes, wanted " +
                std::to_string(rows) + " rows of " + std::to_string(row_bytes));
  }
  check_scale(matrix, tensor);
  const unsigned padding = padding_bits(columns);
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto bytes =
        matrix.codes.subspan(static_cast<std::size_t>(row * row_bytes), static_cast<std::size_t>(row_bytes));
    const std::uint64_t bad = (bytes.back() & padding) | twos_of(bytes);
    for (std::size_t j = 0; bad != 0 && j < bytes.size(); ++j) {
      const unsigned byte = bytes[j];
      const bool padded = j + 1 == bytes.size() && (byte & padding) != 0;
      if (twos(byte) != 0 || padded) {
        throw Error(
            tensor + ": byte " + std::to_string(byte) + " at row " + std::to_string(row) + ", columns " +
            std::to_string(4 * j) + "..: " +
            (padded ? "the padding past the last column must be 0" : "code 2 is not a ternary weight"));
      }
    }
  }
}

}  // namespace trit
