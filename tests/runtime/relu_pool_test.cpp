// SPDX-License-Identifier: MIT
//
// ReLU and pooling of every instruction set of this CPU, against plain loops, bit for bit, on special values.
// tests/torch compares what the CPU's best ones make of whole graphs with LibTorch.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "cpu/cpu_features.h"
#include "runtime/float_cases.h"
#include "runtime/relu_pool_rows.h"
#include "runtime/same_bits.h"

namespace trit::test {
namespace {

using runtime::Pooling;
using runtime::ReluPoolRows;

struct Named {
  const char* name;
  const ReluPoolRows* rows;
};

std::vector<Named> rows_of_this_cpu() {
  std::vector<Named> found{{"generic", runtime::kReluPoolGeneric}};
  if (runtime::kReluPoolAvx2 != nullptr && has_avx2()) {
    found.push_back({"avx2", runtime::kReluPoolAvx2});
  }
  if (runtime::kReluPoolAvx512 != nullptr && has_avx512_vnni()) {
    found.push_back({"avx512", runtime::kReluPoolAvx512});
  }
  return found;
}

float relu_of(float x) { return x < 0 ? 0.0F : x; }

std::vector<float> pooled(const Pooling& size, bool largest, const std::vector<float>& x) {
  std::vector<float> y;
  for (std::int64_t column = 0; column < size.out_width; ++column) {
    for (std::int64_t c = 0; c < size.inner; ++c) {
      float best = -INFINITY, sum = 0;
      for (std::int64_t i = 0; i < size.kernel * size.kernel; ++i) {
        const std::int64_t at =
            (i / size.kernel * size.width + column * size.stride + i % size.kernel) * size.inner + c;
        const float value =
            size.relu ? relu_of(x[static_cast<std::size_t>(at)]) : x[static_cast<std::size_t>(at)];
        if (value > best || std::isnan(value)) {
          best = value;
        }
        sum += value;
      }
      y.push_back(largest ? best : sum / static_cast<float>(size.kernel * size.kernel));
    }
  }
  return y;
}

TEST(ReluPool, RowsHaveTheBitsOfPlainLoops) {
  std::mt19937 generator(1);
  for (const Named& isa : rows_of_this_cpu()) {
    for (std::int64_t inner = 1; inner <= 40; ++inner) {
      for (const std::int64_t kernel : {1, 2, 3}) {
        for (const std::int64_t stride : {1, 2, 3}) {
          for (const bool relu : {false, true}) {
            SCOPED_TRACE(std::string(isa.name) + ", inner " + std::to_string(inner) + ", kernel " +
                         std::to_string(kernel) + ", stride " + std::to_string(stride));
            Pooling size{.outer = 1,
                         .height = kernel,
                         .width = 9,
                         .inner = inner,
                         .out_height = 1,
                         .out_width = (9 - kernel) / stride + 1,
                         .kernel = kernel,
                         .stride = stride,
                         .relu = relu};
            const std::vector<float> x =
                random_special_values(static_cast<std::size_t>(kernel * 9 * inner), generator);
            std::vector<float> y(static_cast<std::size_t>(size.out_width * inner));
            isa.rows->max_row(size, x.data(), y.data());
            expect_same_bits(y, pooled(size, true, x));
            isa.rows->mean_row(size, x.data(), y.data());
            expect_same_bits(y, pooled(size, false, x));
          }
        }
      }
    }
  }
}

TEST(ReluPool, ReluHasTheBitsOfPlainLoopsAndMayWriteInPlace) {
  std::mt19937 generator(2);
  for (const Named& isa : rows_of_this_cpu()) {
    for (std::size_t count = 0; count < 70; ++count) {
      SCOPED_TRACE(std::string(isa.name) + ", " + std::to_string(count) + " values");
      std::vector<float> x = random_special_values(count, generator);
      std::vector<float> wanted(count), y(count);
      std::transform(x.begin(), x.end(), wanted.begin(), relu_of);
      isa.rows->relu(static_cast<std::int64_t>(count), x.data(), y.data());
      expect_same_bits(y, wanted);
      isa.rows->relu(static_cast<std::int64_t>(count), x.data(), x.data());
      expect_same_bits(x, wanted);
    }
  }
}

}  // namespace
}  // namespace trit::test
