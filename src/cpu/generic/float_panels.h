// SPDX-License-Identifier: MIT
//
// The kernel of float products (FloatProductKernel) for vectors of floats:
//
//   C, kRows x 2 vectors of sums, in registers      B, a panel of 2 vectors: 32 inputs a step, in L1
//   A, blocks of kRows rows, transposed: each number is broadcast and multiplied with both vectors of B
//
// Two vectors and kRows broadcasts feed 2 kRows products, so that loads are never what limits. `Vectors` says what the
// registers are. Compiled by the folders of the instruction sets, each for itself.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

#include "cpu/table.h"

namespace trit::float_panels {
namespace {

constexpr std::int64_t kStep = 32;

template <typename Vectors>
constexpr std::int64_t kColumns = 2 * Vectors::kLanes;

/// A step of A: kStep times kRows numbers, element (row, k) at k kRows + row.
template <typename Vectors, typename At>
[[gnu::always_inline]] inline void arrange(std::int8_t* parts, std::int64_t rows, std::int64_t count,
                                           const At& at) {
  auto* const to = reinterpret_cast<float*>(parts);
  if (rows < Vectors::kRows || count < kStep) {
    std::memset(parts, 0, sizeof(float) * Vectors::kRows * kStep);
  }
  for (std::int64_t k = 0; k < count; ++k) {
    if (rows == Vectors::kRows) {
      for (std::int64_t row = 0; row < Vectors::kRows; ++row) {
        to[k * Vectors::kRows + row] = at(row, k);
      }
    } else {
      for (std::int64_t row = 0; row < rows; ++row) {
        to[k * Vectors::kRows + row] = at(row, k);
      }
    }
  }
}

template <typename Vectors>
void rows_to_parts(const FloatRows& from, std::int8_t* parts) {
  arrange<Vectors>(parts, from.rows, from.columns, [&](std::int64_t row, std::int64_t k) {
    return from.values[row * from.stride + k] *
           (from.column_scale != nullptr ? from.column_scale[k] : from.scale);
  });
}

template <typename Vectors>
void columns_to_parts(const FloatRows& from, std::int8_t* parts) {
  arrange<Vectors>(parts, from.columns, from.rows, [&](std::int64_t column, std::int64_t k) {
    return from.values[k * from.stride + column] *
           (from.row_scale != nullptr ? from.row_scale[k] : from.scale);
  });
}

/// A step of B: kStep rows of kColumns numbers, `rows` of them from `read(row)`.
template <typename Vectors, typename Read>
[[gnu::always_inline]] inline void fill(std::int8_t* pairs, std::int64_t rows, const Read& read) {
  auto* to = reinterpret_cast<float*>(pairs);
  for (std::int64_t row = 0; row < rows; ++row, to += kColumns<Vectors>) {
    read(row, to);
  }
  std::memset(to, 0, sizeof(float) * static_cast<std::size_t>((kStep - rows) * kColumns<Vectors>));
}

template <typename Vectors>
void codes_to_pairs(const std::uint8_t* codes, std::int64_t row_bytes, std::int64_t rows,
                    std::int64_t columns, std::int8_t* pairs) {
  using Half = typename Vectors::Codes;  // of a vector
  const auto split = [](const std::array<Half, 2>& halves, float* to) __attribute__((always_inline)) {
    Vectors::store(to, Vectors::weights(halves[0]));
    Vectors::store(to + Vectors::kLanes, Vectors::weights(halves[1]));
  };
  if (columns == kColumns<Vectors>) {
    fill<Vectors>(
        pairs, rows, [&](std::int64_t row, float* to) __attribute__((always_inline)) {
          std::array<Half, 2> halves;
          std::memcpy(halves.data(), codes + row * row_bytes, sizeof(halves));
          split(halves, to);
        });
    return;
  }
  // The bits behind a row's last code are zeros or those of columns that are not wanted, whose sums are not written.
  const auto bytes = static_cast<std::size_t>((columns + 3) / 4);
  fill<Vectors>(pairs, rows, [&](std::int64_t row, float* to) {
    std::array<Half, 2> halves{};
    std::memcpy(halves.data(), codes + row * row_bytes, bytes);
    split(halves, to);
  });
}

template <typename Vectors>
void integers_to_pairs(const std::int8_t* q, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                       std::int8_t* pairs) {
  const auto convert = [](const std::int8_t* integers, float* to) __attribute__((always_inline)) {
    Vectors::store(to, Vectors::floats(integers));
    Vectors::store(to + Vectors::kLanes, Vectors::floats(integers + Vectors::kLanes));
  };
  fill<Vectors>(
      pairs, rows, [&](std::int64_t row, float* to) __attribute__((always_inline)) {
        if (columns == kColumns<Vectors>) {
          convert(q + row * stride, to);
        } else {
          std::array<std::int8_t, kColumns<Vectors>> integers{};
          std::memcpy(integers.data(), q + row * stride, static_cast<std::size_t>(columns));
          convert(integers.data(), to);
        }
      });
}

enum class Write : std::uint8_t { replace, add, stream };

/// kCount rows of C.
template <typename Vectors, int kCount>
void sums(const float* a, const float* b, std::int64_t depth, float* c, std::int64_t stride, Write write) {
  constexpr std::int64_t kLanes = Vectors::kLanes;
  typename Vectors::Floats low[kCount];
  typename Vectors::Floats high[kCount];
#pragma GCC unroll 16
  for (int i = 0; i < kCount; ++i) {
    low[i] = high[i] = Vectors::zero();
    if (write != Write::stream) {
      __builtin_prefetch(c + i * stride, 1);
    }
  }
  for (std::int64_t k = 0; k < depth; ++k, a += Vectors::kRows, b += 2 * kLanes) {
    const auto b_low = Vectors::load(b);
    const auto b_high = Vectors::load(b + kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kCount; ++i) {
      const auto value = Vectors::broadcast(a + i);
      low[i] = Vectors::multiply_add(value, b_low, low[i]);
      high[i] = Vectors::multiply_add(value, b_high, high[i]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kCount; ++i) {
    float* const to = c + i * stride;
    if (write == Write::stream) {
      Vectors::stream(to, low[i]);
      Vectors::stream(to + kLanes, high[i]);
    } else if (write == Write::add) {
      Vectors::store(to, Vectors::add(Vectors::load(to), low[i]));
      Vectors::store(to + kLanes, Vectors::add(Vectors::load(to + kLanes), high[i]));
    } else {
      Vectors::store(to, low[i]);
      Vectors::store(to + kLanes, high[i]);
    }
  }
}

template <typename Vectors>
void product(const FloatProduct& args) {
  // By the rows that there are: 128 = 21 x 6 + 2.
  static constexpr auto kSums = []<std::size_t... kCount>(std::index_sequence<kCount...> /*counts*/) {
    return std::array{&sums<Vectors, static_cast<int>(kCount) + 1>...};
  }(std::make_index_sequence<Vectors::kRows>{});
  const auto* const b = reinterpret_cast<const float*>(args.pairs);
  const std::int64_t depth = args.steps * kStep;
  const bool aligned = reinterpret_cast<std::uintptr_t>(args.c) % 64 == 0 && args.stride % 16 == 0;
  const bool stream = args.non_temporal && !args.add && aligned;
  const Write write = args.add ? Write::add : stream ? Write::stream : Write::replace;
  const std::int8_t* parts = args.parts;
  for (std::int64_t row = 0; row < args.rows; row += Vectors::kRows, parts += args.block_bytes) {
    const auto* const a = reinterpret_cast<const float*>(parts);
    float* const c = args.c + row * args.stride;
    const std::int64_t rows = args.rows - row < Vectors::kRows ? args.rows - row : Vectors::kRows;
    const auto sums_of_rows = kSums[static_cast<std::size_t>(rows - 1)];
    if (args.columns == kColumns<Vectors>) {
      sums_of_rows(a, b, depth, c, args.stride, write);
      continue;
    }
    float part[Vectors::kRows * kColumns<Vectors>];
    sums_of_rows(a, b, depth, part, kColumns<Vectors>, Write::replace);
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < args.columns; ++j) {
        const float sum = part[i * kColumns<Vectors> + j];
        c[i * args.stride + j] = args.add ? c[i * args.stride + j] + sum : sum;
      }
    }
  }
  if (stream) {
    Vectors::fence();
  }
}

/// `cached`: bytes of A that stay in the second-level cache.
template <typename Vectors>
constexpr FloatProductKernel kernel(std::int64_t cached) {
  return {
      .available = [] { return true; },
      .rows = Vectors::kRows,
      .columns = kColumns<Vectors>,
      .cached_bytes = cached,
      .max_tokens = 256,
      .max_steps = 8,
      .parts_bytes = std::int64_t{sizeof(float)} * Vectors::kRows * kStep,
      .pairs_bytes = std::int64_t{sizeof(float)} * kColumns<Vectors> * kStep,
      .rows_to_parts = rows_to_parts<Vectors>,
      .columns_to_parts = columns_to_parts<Vectors>,
      .codes_to_pairs = codes_to_pairs<Vectors>,
      .integers_to_pairs = integers_to_pairs<Vectors>,
      .product = product<Vectors>,
  };
}

}  // namespace
}  // namespace trit::float_panels
