// SPDX-License-Identifier: MIT
//
// What the tests of products share, with and without group scales.
#pragma once

#include <array>
#include <string>
#include <type_traits>

#include "cuda/support.h"

namespace trit::test {

/// q and t of a product, and the type of its results.
struct Operands {
  std::int64_t m, n, k;
  std::vector<std::int8_t> q = {};  // [m, k]
  std::vector<std::int8_t> t = {};  // [n, k]
  DataType y_type = DataType::float32;

  std::string shape() const {
    return "M, N, K = " + std::to_string(m) + ", " + std::to_string(n) + ", " + std::to_string(k);
  }
  /// Rows of codes as prepare_weights takes them.
  std::vector<std::uint8_t> codes() const {
    const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(k));
    std::vector<std::uint8_t> result(static_cast<std::size_t>(n) * row_bytes);
    for (std::size_t row = 0; row < static_cast<std::size_t>(n); ++row) {
      pack_row(std::span(t).subspan(row * static_cast<std::size_t>(k), static_cast<std::size_t>(k)),
               std::span(result).subspan(row * row_bytes, row_bytes));
    }
    return result;
  }
  /// q in rows of quantized_row_bytes(k). What lies behind a row's inputs does not matter.
  std::vector<std::int8_t> padded_q() const {
    const std::int64_t row_bytes = cuda::quantized_row_bytes(k);
    std::vector<std::int8_t> result(static_cast<std::size_t>(m * row_bytes), 77);
    for (std::int64_t row = 0; row < m; ++row) {
      std::copy_n(q.begin() + row * k, k, result.begin() + row * row_bytes);
    }
    return result;
  }
};

class CudaOperandsTest : public CudaTest {
 protected:
  DataType any_type() {
    return std::array{DataType::float32, DataType::bfloat16,
                      DataType::float16}[static_cast<std::size_t>(uniform(0, 2))];
  }

  /// Random values, or those with the largest sums: q all -128 against t all +1, q all 127.
  void fill(Operands& c) {
    const std::int64_t kind = uniform(0, 5);
    for (std::int64_t i = 0; i < c.m * c.k; ++i) {
      c.q.push_back(static_cast<std::int8_t>(kind == 0 ? -128 : (kind == 1 ? 127 : uniform(-128, 127))));
    }
    for (std::int64_t i = 0; i < c.n * c.k; ++i) {
      c.t.push_back(
          static_cast<std::int8_t>(kind == 0 ? 1 : (kind == 1 ? uniform(0, 1) * 2 - 1 : uniform(-1, 1))));
    }
  }

  /// Devices that make the plans differ: rows beside each other, splits of k, chunks of x where a block has
  /// only `few_shared_bytes`.
  cuda::Device random_device(std::int64_t few_shared_bytes) {
    cuda::Device device = largest_device();
    device.multiprocessors =
        static_cast<int>(std::array<std::int64_t, 4>{1, 2, 7, 132}[static_cast<std::size_t>(uniform(0, 3))]);
    device.shared_bytes = static_cast<int>(
        std::min<std::int64_t>(device.shared_bytes, uniform(0, 1) == 0 ? few_shared_bytes : 232448));
    return device;
  }

  /// Results of `c` as Element, float or the bits of c.y_type, against the float ones that are wanted. `what` is
  /// added to the message.
  template <typename Element>
  static void assert_results(const Operands& c, const std::vector<Element>& found,
                             const std::vector<float>& wanted, const std::string& what = {}) {
    ASSERT_EQ(found.size(), wanted.size());
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if constexpr (std::is_same_v<Element, float>) {
        ASSERT_TRUE(same_bits(found[i], wanted[i])) << i << " of " << c.shape() << what;
      } else {
        ASSERT_TRUE(same_half(c.y_type, found[i], to_half(c.y_type, wanted[i])))
            << i << " of " << c.shape() << what;
      }
    }
  }
};

}  // namespace trit::test
