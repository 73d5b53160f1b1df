// SPDX-License-Identifier: MIT
//
// What the kernel tests share: a test per row of the kernel table that this machine can run, seeded random
// values, comparisons of bits.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "cpu/table.h"
#include "run_seed.h"
#include "trit/linear.h"
#include "trit/parallel.h"

namespace trit::test {

inline std::vector<const CpuKernels*> available_rows() {
  std::vector<const CpuKernels*> rows;
  for (const CpuKernels* row : cpu_kernels()) {
    if (row->available()) {
      rows.push_back(row);
    }
  }
  return rows;
}

/// A row of the table and one of its layouts.
struct RowAndLayout {
  const CpuKernels* kernels;
  const PanelLayout* layout;
};
inline std::vector<RowAndLayout> available_layouts() {
  std::vector<RowAndLayout> layouts;
  for (const CpuKernels* row : available_rows()) {
    for (const PanelLayout& layout : row->layouts) {
      if (layout.available()) {
        layouts.push_back({row, &layout});
      }
    }
  }
  return layouts;
}

/// `count` random cases; a twentieth of them where sanitizers make each many times slower (TRIT_SANITIZED).
inline int random_cases(int count) {
  return std::getenv("TRIT_SANITIZED") != nullptr ? std::max(count / 20, 1) : count;
}

/// A test of one backend of this machine; its random numbers depend on the run's seed and the test's name
/// alone.
class SeededKernelTest : public testing::Test {
 protected:
  explicit SeededKernelTest(const CpuKernels& kernels) : kernels_(kernels) {
    const testing::TestInfo& info = *testing::UnitTest::GetInstance()->current_test_info();
    std::seed_seq sequence{run_seed(), static_cast<std::uint64_t>(std::hash<std::string>{}(
                                           std::string(info.name()) + info.test_suite_name()))};
    random_.seed(sequence);
  }
  ~SeededKernelTest() override {
    if (cases_ > 0) {
      std::printf("%s: %lld cases\n", std::string(name_of(kernels().backend)).c_str(),
                  static_cast<long long>(cases_));
    }
  }

  const CpuKernels& kernels() const { return kernels_; }

  /// Uniform in [low, high].
  std::int64_t uniform(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random_);
  }
  float normal() { return std::normal_distribution<float>()(random_); }

  std::vector<std::int8_t> random_trits(std::int64_t count) {
    std::vector<std::int8_t> t(static_cast<std::size_t>(count));
    for (std::int8_t& value : t) {
      value = static_cast<std::int8_t>(uniform(-1, 1));
    }
    return t;
  }
  /// Stored rows of random weights.
  TernaryMatrix random_matrix(std::int64_t rows, std::int64_t columns, bool per_row) {
    TernaryMatrix matrix{rows, columns, {}, {}};
    const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(columns));
    matrix.codes.resize(static_cast<std::size_t>(rows) * row_bytes);
    for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
      pack_row(random_trits(columns), std::span(matrix.codes).subspan(row * row_bytes, row_bytes));
    }
    for (std::int64_t i = 0; i < (per_row ? rows : 1); ++i) {
      matrix.scale.push_back(std::exp(normal()));
    }
    return matrix;
  }

  std::mt19937_64 random_;
  std::int64_t cases_ = 0;

 private:
  const CpuKernels& kernels_;
};

/// Runs once per backend.
class KernelTest : public SeededKernelTest, public testing::WithParamInterface<const CpuKernels*> {
 protected:
  KernelTest() : SeededKernelTest(*GetParam()) {}
};
inline std::string row_name(const testing::TestParamInfo<const CpuKernels*>& test) {
  return std::string(name_of(test.param->backend));
}

/// Runs once per layout of each backend.
class LayoutTest : public SeededKernelTest, public testing::WithParamInterface<RowAndLayout> {
 protected:
  LayoutTest() : SeededKernelTest(*GetParam().kernels) {}
  const PanelLayout& layout() const { return *GetParam().layout; }
};
inline std::string layout_name(const testing::TestParamInfo<RowAndLayout>& test) {
  return std::string(name_of(test.param.kernels->backend)) + "_" +
         std::string(name_of(test.param.layout->format));
}

/// Equal bits, or NaN both: a NaN's payload is not part of the contract.
inline bool same_bits(float a, float b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}
inline testing::AssertionResult same_bits(const std::vector<float>& found, const std::vector<float>& wanted) {
  if (found.size() != wanted.size()) {
    return testing::AssertionFailure() << found.size() << " values, wanted " << wanted.size();
  }
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (!same_bits(found[i], wanted[i])) {
      return testing::AssertionFailure()
             << "value " << i << ": " << std::hexfloat << found[i] << ", wanted " << wanted[i];
    }
  }
  return testing::AssertionSuccess();
}

/// The same as `type` bits, and back; NaN stays NaN.
inline std::uint16_t to_half(DataType type, float value) {
  return type == DataType::bfloat16 ? float_to_bfloat16(value) : float_to_float16(value);
}
inline float from_half(DataType type, std::uint16_t bits) {
  return type == DataType::bfloat16 ? bfloat16_to_float(bits) : float16_to_float(bits);
}
inline bool same_half(DataType type, std::uint16_t a, std::uint16_t b) {
  return a == b || (std::isnan(from_half(type, a)) && std::isnan(from_half(type, b)));
}

/// Quantised activations with their storage.
struct QuantizedBatch {
  std::int64_t tokens;
  std::int64_t group = 0;      // inputs of a scale, or one scale for a token
  std::vector<std::int8_t> q;  // [tokens, padded_in_features(K)]
  std::vector<float> scale, rstd;
  std::vector<std::int32_t> q_sum;

  QuantizedBatch(std::int64_t m, std::int64_t in_features)
      : tokens(m),
        q(static_cast<std::size_t>(m * padded_in_features(in_features))),
        scale(static_cast<std::size_t>(m), 1.0F),
        rstd(static_cast<std::size_t>(m)),
        q_sum(static_cast<std::size_t>(m)) {}
  QuantizedRows rows() const { return {q.data(), scale.data(), q_sum.data(), tokens, group}; }
};

}  // namespace trit::test
