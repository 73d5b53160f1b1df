// SPDX-License-Identifier: MIT
//
// norm_quant of src/cuda against norm_quant_row of quantize.h, bit for bit.
#include <algorithm>
#include <limits>

#include "cuda/support.h"

namespace trit::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();

class CudaNormQuantTest : public CudaTest {
 protected:
  // Rows that look for different trouble.
  std::vector<float> random_row(std::int64_t k) {
    std::vector<float> x = normals(k);
    const std::int64_t kind = uniform(0, 7);
    const float scale = std::pow(10.0F, static_cast<float>(uniform(-40, 38)));
    for (float& v : x) {
      if (kind == 0) {  // ties: halves
        v = static_cast<float>(uniform(-253, 253)) / 2;
      } else if (kind == 1) {  // any finite float
        v = std::bit_cast<float>(static_cast<std::uint32_t>(random_()) & 0xbfffffffU);
      } else if (kind == 2) {  // denormals
        v = std::bit_cast<float>(static_cast<std::uint32_t>(random_()) & 0x807fffffU);
      } else if (kind == 3) {  // any scale, overflow of the squares included
        v *= scale;
      } else if (kind == 4) {  // any bits
        v = std::bit_cast<float>(static_cast<std::uint32_t>(random_()));
      } else if (kind == 5) {
        v = uniform(0, 1) == 0 ? 0.0F : -0.0F;
      }
    }
    if (kind == 0) {
      x[static_cast<std::size_t>(uniform(0, k - 1))] = 127;
    }
    if (uniform(0, 9) == 0) {
      const std::array special = {kNan, -kNan, kInfinity, -kInfinity, 3.4e38F, 1e-45F};
      x[static_cast<std::size_t>(uniform(0, k - 1))] = special[static_cast<std::size_t>(uniform(0, 5))];
    }
    return x;
  }

  template <typename Element>
  void compare(const cuda::Device& device, std::int64_t tokens, std::int64_t k, DataType type, Norm norm,
               bool weighted, bool aligned) {
    // Rows are `stride` apart and the first one starts anywhere: no alignment beyond the element's.
    // `aligned` rows, on 16 bytes, take another kernel where there are many.
    const std::int64_t stride = aligned ? (k + 7) / 8 * 8 + uniform(0, 1) * 8 : k + uniform(0, 3);
    std::vector<Element> stored(static_cast<std::size_t>(tokens * stride), Element{});
    std::vector<std::vector<float>> rows;
    for (std::int64_t m = 0; m < tokens; ++m) {
      rows.push_back(random_row(k));
      for (std::int64_t i = 0; i < k; ++i) {
        float& v = rows.back()[static_cast<std::size_t>(i)];
        Element& element = stored[static_cast<std::size_t>(m * stride + i)];
        if constexpr (std::is_same_v<Element, float>) {
          element = v;
        } else {
          element = to_half(type, v);
          v = from_half(type, element);  // what the kernel sees
        }
      }
    }
    std::vector<float> norm_weight = normals(k);
    const float eps = uniform(0, 1) == 0 ? 1e-6F : 1e-40F;
    const std::int64_t row_bytes = cuda::quantized_row_bytes(k);
    const DeviceArray<Element> x{std::span<const Element>(stored),
                                 static_cast<std::size_t>(aligned ? 0 : uniform(0, 3))};
    const DeviceArray<float> g{std::span<const float>(norm_weight)};
    const DeviceArray<std::int8_t> q(static_cast<std::size_t>(tokens * row_bytes));
    const DeviceArray<float> scale(static_cast<std::size_t>(tokens));
    const DeviceArray<float> rstd(static_cast<std::size_t>(tokens));
    cuda::norm_quant(device,
                     {.x = x.data(),
                      .x_type = type,
                      .tokens = tokens,
                      .in_features = k,
                      .x_stride = stride,
                      .norm = norm,
                      .norm_weight = weighted ? g.data() : nullptr,
                      .eps = eps,
                      .q = q.data(),
                      .scale = scale.data(),
                      .rstd = rstd.data(),
                      .programmatic = uniform(0, 1) == 0 && device.compute_capability >= 90},
                     nullptr);
    const std::vector<std::int8_t> found_q = values_of(q);
    const std::vector<float> found_scale = values_of(scale);
    const std::vector<float> found_rstd = values_of(rstd);
    for (std::int64_t m = 0; m < tokens; ++m) {
      std::vector<std::int8_t> wanted(static_cast<std::size_t>(k));
      const TokenScales scales = norm_quant_row(
          rows[static_cast<std::size_t>(m)], norm,
          weighted ? std::span<const float>(norm_weight) : std::span<const float>(), eps, wanted);
      wanted.resize(static_cast<std::size_t>(row_bytes), 0);
      const std::vector<std::int8_t> found(found_q.begin() + m * row_bytes,
                                           found_q.begin() + (m + 1) * row_bytes);
      ASSERT_EQ(found, wanted) << "row " << m << " of " << tokens << ", K = " << k << ", " << name_of(type);
      ASSERT_TRUE(same_bits(found_scale[static_cast<std::size_t>(m)], scales.scale))
          << "row " << m << ", K = " << k;
      ASSERT_TRUE(same_bits(found_rstd[static_cast<std::size_t>(m)], scales.rstd))
          << "row " << m << ", K = " << k;
    }
    ++cases_;
  }

  void compare(const cuda::Device& device, std::int64_t tokens, std::int64_t k, DataType type) {
    const Norm norm = uniform(0, 2) == 0 ? Norm::none : Norm::rms;
    const bool weighted = uniform(0, 3) != 0;
    const bool aligned = uniform(0, 3) == 0;
    type == DataType::float32 ? compare<float>(device, tokens, k, type, norm, weighted, aligned)
                              : compare<std::uint16_t>(device, tokens, k, type, norm, weighted, aligned);
  }
};

constexpr std::array kTypes = {DataType::float32, DataType::bfloat16, DataType::float16};

TEST_F(CudaNormQuantTest, RandomRows) {
  for (int i = 0; i < rounds(300) && !HasFatalFailure(); ++i) {
    use_policy(i);
    compare(largest_device(), uniform(1, 4), size_near(256, 3000), kTypes[static_cast<std::size_t>(i % 3)]);
  }
}

// A small device has many rows soon: a block each with the row in registers, or a warp each.
TEST_F(CudaNormQuantTest, ManyRows) {
  cuda::Device small = largest_device();
  small.multiprocessors = 1;
  for (int i = 0; i < rounds(200) && !HasFatalFailure(); ++i) {
    use_policy(i);
    small.shared_bytes = i % 4 == 0 ? 24'000 : 232'448;
    compare(small, uniform(5, 21), size_near(256, 3000), kTypes[static_cast<std::size_t>(i % 3)]);
  }
}

// 16-bit rows in registers end at 2048, 2560, 3072, 4096, 8192 and 16,384 inputs.
TEST_F(CudaNormQuantTest, RowsAboutAsLongAsRegistersHold) {
  cuda::Device small = largest_device();
  small.multiprocessors = 1;
  int i = 0;
  for (const std::int64_t k : {2046, 2048, 2050, 2558, 2560, 2562, 3070,  3072,  3074,  4095,
                               4096, 4097, 8190, 8191, 8192, 8193, 14336, 16383, 16384, 16385}) {
    use_policy(i);
    compare(small, 9, k, kTypes[static_cast<std::size_t>(1 + i++ % 2)]);
  }
}

// Many aligned rows with a norm weight: blocks that stay, from 3072 to 8192 inputs.
TEST_F(CudaNormQuantTest, ManyRowsWithANormWeight) {
  cuda::Device small = largest_device();
  small.multiprocessors = 1;
  int i = 0;
  for (const std::int64_t k : {3072, 3080, 3328, 4088, 4096, 4104, 6912, 8184, 8192}) {
    use_policy(i);
    compare<std::uint16_t>(small, uniform(9, 20), k, kTypes[static_cast<std::size_t>(1 + i++ % 2)], Norm::rms,
                           /*weighted=*/true, /*aligned=*/true);
  }
}

// Rows that fill shared memory, that just do not fit, and that are far beyond.
TEST_F(CudaNormQuantTest, LongRows) {
  cuda::Device small = largest_device();
  small.shared_bytes = 49152;
  int i = 0;
  for (const std::int64_t k : {11'984, 11'985, 12'000, 20'000, 70'001}) {
    use_policy(i);
    compare(small, 2, k, kTypes[static_cast<std::size_t>(i++ % 3)]);
    compare(largest_device(), 1, k, kTypes[static_cast<std::size_t>(i % 3)]);
  }
}

// ms and m are finite, r * m is not: a bad row.
TEST_F(CudaNormQuantTest, OverflowOfTheProductAlone) {
  std::vector<float> x(600, 1e-10F);
  std::vector<float> norm_weight(600, 1.0F);
  x[5] = 1e-9F;
  norm_weight[5] = 3e38F;
  std::vector<std::int8_t> wanted(600);
  ASSERT_TRUE(std::isnan(norm_quant_row(x, Norm::rms, norm_weight, 1e-40F, wanted).scale));
  const DeviceArray<float> device_x{std::span<const float>(x)};
  const DeviceArray<float> g{std::span<const float>(norm_weight)};
  const DeviceArray<std::int8_t> q(608);
  const DeviceArray<float> scale(1);
  cuda::norm_quant(largest_device(),
                   {.x = device_x.data(),
                    .tokens = 1,
                    .in_features = 600,
                    .x_stride = 600,
                    .norm = Norm::rms,
                    .norm_weight = g.data(),
                    .eps = 1e-40F,
                    .q = q.data(),
                    .scale = scale.data()},
                   nullptr);
  EXPECT_TRUE(std::isnan(values_of(scale)[0]));
  EXPECT_EQ(values_of(q), std::vector<std::int8_t>(608, 0));
}

TEST_F(CudaNormQuantTest, NoTokens) {
  cuda::norm_quant(largest_device(), {.x = nullptr, .tokens = 0, .in_features = 30}, nullptr);
}

TEST_F(CudaNormQuantTest, Errors) {
  const DeviceArray<float> memory(64);
  const cuda::NormQuant good{.x = memory.data(),
                             .tokens = 1,
                             .in_features = 16,
                             .x_stride = 16,
                             .norm = Norm::rms,
                             .q = reinterpret_cast<std::int8_t*>(memory.data() + 16),
                             .scale = memory.data() + 32};
  cuda::NormQuant args = good;
  args.eps = 0;
  EXPECT_THROW(cuda::norm_quant(largest_device(), args, nullptr), Error);
  args = good;
  args.in_features = 0;
  EXPECT_THROW(cuda::norm_quant(largest_device(), args, nullptr), Error);
  args = good;
  args.q = good.q + 1;
  EXPECT_THROW(cuda::norm_quant(largest_device(), args, nullptr), Error);
  args = good;
  args.tokens = -1;
  EXPECT_THROW(cuda::norm_quant(largest_device(), args, nullptr), Error);
}

}  // namespace
}  // namespace trit::test
