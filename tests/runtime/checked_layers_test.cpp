// SPDX-License-Identifier: MIT
//
// Layers that are checked while they are prepared: the same layers, their checksums, and errors.
#include "runtime/checked_layers.h"

#include <algorithm>
#include <array>
#include <atomic>

#include "cpu/support.h"
#include "trit/crc32c.h"
#include "trit/error.h"

namespace trit::test {
namespace {

class CheckedLayersTest : public LayoutTest {
 protected:
  /// Outputs for one token of all ones.
  static std::vector<float> run(const PackedLinear& layer, Parallel& parallel) {
    QuantizedBatch batch(1, layer.in_features());
    std::fill_n(batch.q.begin(), layer.in_features(), std::int8_t{1});
    batch.q_sum[0] = static_cast<std::int32_t>(layer.in_features());
    std::vector<float> y(static_cast<std::size_t>(layer.out_features()));
    layer.product(parallel, batch.rows(), nullptr, DataType::float32, y.data());
    return y;
  }
};

// Large matrices are cut into tasks. One wrong code or scale anywhere is found, and the error says where.
TEST_P(CheckedLayersTest, FindsWhatIsWrongAndWhere) {
  const auto one = make_parallel(1);
  const auto two = make_parallel(2);
  const auto many = make_parallel(7);
  const std::array<Parallel*, 3> teams{one.get(), two.get(), many.get()};
  for (int i = 0; i < 40 && !HasFatalFailure(); ++i) {
    Parallel& parallel = *teams[static_cast<std::size_t>(i % 3)];
    std::vector<TernaryMatrix> matrices;
    for (std::int64_t count = uniform(1, 4); count > 0; --count) {
      matrices.push_back(
          random_matrix(uniform(1, 900), uniform(1, uniform(0, 1) == 0 ? 3000 : 40), i % 2 == 0));
    }
    std::vector<runtime::StoredMatrix> stored;
    const auto prepare = [&] {
      stored.clear();
      for (const TernaryMatrix& matrix : matrices) {
        stored.push_back({matrix.view(), "file: matrix " + std::to_string(stored.size()), 1});
      }
      std::vector<std::atomic<int>> times(matrices.size());
      std::vector<PackedLinear> packed = runtime::prepare_checked(
          kernels(), parallel, stored, layout().format,
          [&](const runtime::StoredMatrix& matrix) { ++times[&matrix - stored.data()]; });
      EXPECT_TRUE(std::ranges::all_of(times, [](const std::atomic<int>& n) { return n == 1; }));
      return packed;
    };
    const std::vector<PackedLinear> packed = prepare();
    ASSERT_EQ(packed.size(), matrices.size());
    for (std::size_t m = 0; m < matrices.size(); ++m) {
      const PackedLinear wanted(kernels(), parallel, matrices[m].view(), layout().format);
      ASSERT_TRUE(same_bits(run(packed[m], parallel), run(wanted, parallel)));
      ASSERT_EQ(stored[m].codes_crc, crc32c(std::as_bytes(std::span(matrices[m].codes))));
    }

    const auto expect_refusal = [&](const std::string& wanted) {
      try {
        prepare();
        ADD_FAILURE() << "accepted, wanted an error with " << wanted;
      } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find(wanted), std::string::npos) << error.what();
      }
    };
    const auto wrong = static_cast<std::size_t>(uniform(0, std::ssize(matrices) - 1));
    const std::string name = "file: matrix " + std::to_string(wrong);
    TernaryMatrix& matrix = matrices[wrong];
    const std::int64_t row = uniform(0, matrix.out_features - 1);
    const std::int64_t row_bytes = packed_row_bytes(matrix.in_features);
    const std::int64_t column = uniform(0, matrix.in_features - 1);
    std::uint8_t& byte = matrix.codes[static_cast<std::size_t>(row * row_bytes + column / 4)];
    const std::uint8_t good = byte;
    byte = static_cast<std::uint8_t>((good & ~(3U << column % 4 * 2)) | 2U << column % 4 * 2);
    const std::string place =
        " at row " + std::to_string(row) + ", columns " + std::to_string(column / 4 * 4) + "..: ";
    expect_refusal(name + ": byte " + std::to_string(byte) + place + "code 2");
    byte = good;
    if (matrix.in_features % 4 != 0) {
      std::uint8_t& last = matrix.codes[static_cast<std::size_t>((row + 1) * row_bytes - 1)];
      last = static_cast<std::uint8_t>(last ^ 0x40U);
      expect_refusal(name + ": byte " + std::to_string(last) + " at row " + std::to_string(row) +
                     ", columns " + std::to_string(4 * row_bytes - 4) + "..: the padding");
      last = static_cast<std::uint8_t>(last ^ 0x40U);
    }
    matrix.scale.back() = -1;
    expect_refusal(name + "_scale: value " + std::to_string(matrix.scale.size() - 1));
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, CheckedLayersTest, testing::ValuesIn(available_layouts()), layout_name);

}  // namespace
}  // namespace trit::test
