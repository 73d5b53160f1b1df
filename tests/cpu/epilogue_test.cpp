// SPDX-License-Identifier: MIT
//
// epilogue_row of every backend against epilogue() of quantize.h, and the conversions to 16 bits.
#include <algorithm>
#include <limits>

#include "cpu/support.h"

namespace trit::test {
namespace {

class EpilogueTest : public KernelTest {
 protected:
  float random_float() {
    switch (uniform(0, 5)) {
      case 0:
        return normal();
      case 1:
        return std::bit_cast<float>(static_cast<std::uint32_t>(random_()));
      case 2:
        return normal() * 1e-20F;
      case 3:
        return normal() * 1e-40F;
      default:
        return std::exp(normal());
    }
  }
  void compare(const std::vector<std::int32_t>& acc, float token_scale, const std::vector<float>& scale,
               const std::vector<float>& bias, DataType type) {
    const std::size_t rows = acc.size();
    std::vector<float> y(rows + 1, -7.5F);  // one past the end, to see that it is not written
    std::vector<std::uint16_t> half(rows + 1, 0x1234);
    kernels().epilogue_row({.acc = acc.data(),
                            .rows = static_cast<std::int64_t>(rows),
                            .token_scale = token_scale,
                            .weight_scale = scale.data(),
                            .weight_scale_per_row = scale.size() != 1,
                            .bias = bias.empty() ? nullptr : bias.data(),
                            .y_type = type,
                            .y = type == DataType::float32 ? static_cast<void*>(y.data()) : half.data()});
    for (std::size_t i = 0; i < rows; ++i) {
      const float wanted =
          epilogue(acc[i], token_scale, scale[scale.size() == 1 ? 0 : i], bias.empty() ? nullptr : &bias[i]);
      if (type == DataType::float32) {
        ASSERT_TRUE(same_bits(y[i], wanted))
            << y[i] << ", wanted " << wanted << ", row " << i << " of " << rows;
      } else {
        ASSERT_TRUE(same_half(type, half[i], to_half(type, wanted)))
            << half[i] << ", wanted " << to_half(type, wanted) << " for " << wanted << ", " << name_of(type);
      }
    }
    ASSERT_EQ(y[rows], -7.5F);
    ASSERT_EQ(half[rows], 0x1234);
    ++cases_;
  }
};

// Whole registers, which some backends write without masks, and what is left over.
TEST_P(EpilogueTest, RandomRows) {
  std::int64_t most = 0;
  for (const PanelLayout& layout : kernels().layouts) {
    most = std::max(most, layout.panel_rows);
  }
  for (int i = 0; i < random_cases(6000) && !HasFatalFailure(); ++i) {
    const std::int64_t any = uniform(1, most);
    const auto rows = static_cast<std::size_t>(uniform(0, 1) == 0 ? any : (any + 15) / 16 * 16);
    std::vector<std::int32_t> acc(rows);
    const std::int64_t limit = uniform(0, 1) == 0 ? 100000 : std::numeric_limits<std::int32_t>::max();
    std::generate(acc.begin(), acc.end(), [&] { return static_cast<std::int32_t>(uniform(-limit, limit)); });
    std::vector<float> scale(uniform(0, 1) == 0 ? 1 : rows);
    std::generate(scale.begin(), scale.end(), [&] { return random_float(); });
    std::vector<float> bias(uniform(0, 1) == 0 ? 0 : rows);
    std::generate(bias.begin(), bias.end(), [&] { return random_float(); });
    compare(acc, random_float(), scale, bias, static_cast<DataType>(uniform(0, 2)));
  }
}

// Through bias every float reaches the conversion: all halves' neighbourhoods, ties included.
TEST_P(EpilogueTest, RoundingToHalf) {
  const auto panel = static_cast<std::size_t>(kernels().layouts.front().panel_rows);
  const std::vector<std::int32_t> acc(panel, 0);
  for (const DataType type : {DataType::bfloat16, DataType::float16}) {
    std::vector<float> bias;
    for (unsigned bits = 0; bits < 0x10000; bits += 3) {
      const float v = from_half(type, static_cast<std::uint16_t>(bits));
      const float next = from_half(type, static_cast<std::uint16_t>(bits ^ 1U));
      const float tie = v + (next - v) / 2;
      for (const float value : {v, tie, std::nextafterf(tie, v), std::nextafterf(tie, next)}) {
        bias.push_back(value);
        if (bias.size() == panel) {
          compare(acc, 1.0F, {1.0F}, bias, type);
          bias.clear();
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, EpilogueTest, testing::ValuesIn(available_rows()), row_name);

}  // namespace
}  // namespace trit::test
