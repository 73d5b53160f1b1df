// SPDX-License-Identifier: MIT
//
// The products with group scales against trit::group_product, bit for bit. TRIT_TEST_FACTOR=n makes it n times
// as many cases.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>

#include "cuda/plan.h"
#include "cuda/product_support.h"

namespace trit::test {
namespace {

struct Case : Operands {
  std::int64_t group = 0;
  std::vector<float> scale = {};        // [n, groups]
  std::vector<float> token_scale = {};  // [m] or [m, groups]
  std::vector<float> bias = {};         // [n] or none
  bool token_groups = false;
  DataType scale_type = DataType::float32;
  std::int64_t groups() const { return groups_of(k, group); }
};

class CudaGroupsTest : public CudaOperandsTest {
 protected:
  /// A scale of one kind for a whole case, or of any.
  float scale_value(int kind) {
    switch (kind) {
      case 0:
        return 0.0625F;
      case 1:  // subnormal, in float32 as in float16
        return std::ldexp(static_cast<float>(uniform(1, 1023)), -149);
      case 2:  // 10^4 apart
        return uniform(0, 1) == 0 ? 3e-3F : 30.0F;
      case 3:
        return std::ldexp(1.0F + static_cast<float>(uniform(0, 8388607)) / 8388608.0F,
                          static_cast<int>(uniform(-126, 127)));
      default:
        return std::fabs(normal()) * 0.02F + 1e-5F;
    }
  }
  float half_scale_value(int kind) {
    switch (kind) {
      case 0:
        return 0.0625F;
      case 1:
        return from_half(DataType::float16, static_cast<std::uint16_t>(uniform(1, 1023)));
      case 3:
        return from_half(DataType::float16, static_cast<std::uint16_t>(uniform(1, 0x7bff)));
      default:
        return from_half(DataType::float16, to_half(DataType::float16, scale_value(kind)));
    }
  }

  std::int64_t any_group() {
    constexpr std::array<std::int64_t, 12> kGroups = {128, 64,  128, 64,  32,   96,
                                                      160, 256, 384, 512, 1024, 100'000};
    const std::int64_t i = uniform(0, 15);
    return i < 12 ? kGroups[static_cast<std::size_t>(i)] : 32 * uniform(1, 40);
  }

  Case random_case(std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t group) {
    Case c{{m, n, k}};
    c.group = group == 100'000 ? (k + 31) / 32 * 32 : group;
    fill(c);
    c.scale_type = uniform(0, 1) == 0 ? DataType::float32 : DataType::float16;
    const int scale_kind = static_cast<int>(uniform(0, 6));
    for (std::int64_t i = 0; i < n * c.groups(); ++i) {
      c.scale.push_back(c.scale_type == DataType::float32 ? scale_value(scale_kind)
                                                          : half_scale_value(scale_kind));
    }
    c.token_groups = uniform(0, 2) == 0;
    const int token_kind = static_cast<int>(uniform(0, 6));
    for (std::int64_t i = 0; i < m * (c.token_groups ? c.groups() : 1); ++i) {
      c.token_scale.push_back(scale_value(token_kind));
    }
    if (uniform(0, 3) == 0) {
      c.token_scale[static_cast<std::size_t>(uniform(0, std::ssize(c.token_scale) - 1))] =
          std::numeric_limits<float>::quiet_NaN();
    }
    c.bias = normals(uniform(0, 1) == 0 ? 0 : n);
    c.y_type = any_type();
    return c;
  }

  static std::vector<float> oracle(const Case& c) {
    std::vector<float> y;
    const auto k = static_cast<std::size_t>(c.k);
    const auto groups = static_cast<std::size_t>(c.groups());
    for (std::size_t m = 0; m < static_cast<std::size_t>(c.m); ++m) {
      for (std::size_t n = 0; n < static_cast<std::size_t>(c.n); ++n) {
        y.push_back(group_product(std::span(c.q).subspan(m * k, k), std::span(c.t).subspan(n * k, k), c.group,
                                  std::span(c.scale).subspan(n * groups, groups), c.token_scale[m],
                                  c.token_groups ? c.token_scale.data() + m * groups : nullptr,
                                  c.bias.empty() ? nullptr : &c.bias[n]));
      }
    }
    return y;
  }

  template <typename Element>
  void compare_as(const Case& c, const cuda::Device& device, const std::optional<cuda::ProductPlan>& plan) {
    const std::vector<std::uint8_t> codes = c.codes();
    const DeviceArray<std::uint8_t> device_codes{std::span<const std::uint8_t>(codes)};
    const DeviceArray<std::uint8_t> weights(cuda::weight_bytes(c.n, c.k));
    cuda::prepare_weights(device_codes.data(), c.n, c.k, weights.data(), nullptr);
    const DeviceArray<float> scale{std::span<const float>(c.scale)};
    const DeviceArray<std::uint8_t> prepared(cuda::group_scale_bytes(c.n, c.k, c.group, c.scale_type));
    cuda::prepare_group_scales(scale.data(), c.n, c.k, c.group, c.scale_type, prepared.data(), nullptr);
    const std::vector<std::int8_t> padded = c.padded_q();
    const DeviceArray<std::int8_t> q{std::span<const std::int8_t>(padded)};
    const DeviceArray<float> token_scale{std::span<const float>(c.token_scale)};
    const DeviceArray<float> bias{std::span<const float>(c.bias)};
    const DeviceArray<Element> y(static_cast<std::size_t>(c.m * c.n),
                                 static_cast<std::size_t>(uniform(0, 3)));
    const std::vector<std::uint8_t> zeros(
        plan ? cuda::product_workspace_bytes(device, *plan, c.m, c.n, c.k, c.group)
             : cuda::product_workspace_bytes(device, c.m, c.n, c.k, c.group));
    const DeviceArray<std::uint8_t> workspace{std::span<const std::uint8_t>(zeros)};
    const cuda::Product product{
        .weights = weights.data(),
        .out_features = c.n,
        .in_features = c.k,
        .q = q.data(),
        .token_scale = token_scale.data(),
        .tokens = c.m,
        .weight_scale = nullptr,
        .granularity = ScaleGranularity::group,
        .bias = c.bias.empty() ? nullptr : bias.data(),
        .y_type = c.y_type,
        .y = y.data(),
        .workspace = workspace.data(),
        .programmatic = uniform(0, 1) == 0 && device.compute_capability >= 90,
        .group = c.group,
        .group_scale = prepared.data(),
        .group_scale_type = c.scale_type,
        .token_scales = c.token_groups ? TokenScaleGranularity::group : TokenScaleGranularity::token};
    plan ? cuda::product(device, *plan, product, nullptr) : cuda::product(device, product, nullptr);
    ASSERT_EQ(values_of(workspace), zeros);
    assert_results(c, values_of(y), oracle(c),
                   ", group = " + std::to_string(c.group) + (c.token_groups ? ", tokens" : "") +
                       (c.scale_type == DataType::float16 ? ", float16" : ""));
    ++cases_;
  }
  void compare(const Case& c, const cuda::Device& device,
               const std::optional<cuda::ProductPlan>& plan = std::nullopt) {
    c.y_type == DataType::float32 ? compare_as<float>(c, device, plan)
                                  : compare_as<std::uint16_t>(c, device, plan);
  }

  /// Every plan of the Hopper GEMM with tiles of at least so many tokens; returns how many there are.
  int compare_gemm_plans(const Case& c, const cuda::Device& device, std::int32_t fewest_tokens) {
    int tried = 0;
    for (const cuda::ProductPlan& plan : cuda::possible_plans(device, c.m, c.n, c.k, c.group)) {
      const auto* const gemm = std::get_if<cuda::GemmSm90Plan>(&plan);
      if (gemm != nullptr && gemm->tokens >= fewest_tokens && !HasFatalFailure()) {
        SCOPED_TRACE(cuda::name_of(plan));
        compare(c, device, plan);
        ++tried;
      }
    }
    return tried;
  }

  cuda::Device random_device() { return CudaOperandsTest::random_device(65536); }
};

TEST_F(CudaGroupsTest, Decode) {
  for (int i = 0; i < rounds(100) && !HasFatalFailure(); ++i) {
    use_policy(i);
    const std::int64_t m = uniform(2, 16);
    compare(random_case(m, size_near(64, 200), size_near(128, 900), any_group()), random_device());
  }
}

TEST_F(CudaGroupsTest, DecodeOfOneToken) {
  for (int i = 0; i < rounds(80) && !HasFatalFailure(); ++i) {
    use_policy(i);
    const bool is_long = i % 8 <= 1;
    const std::int64_t k =
        i % 8 == 0 ? uniform(8'000, 20'000) : (i % 8 == 1 ? uniform(4'000, 8'300) : size_near(128, 3000));
    compare(random_case(1, size_near(64, is_long ? 70 : 300), k, any_group()), random_device());
  }
}

// Several waves of blocks.
TEST_F(CudaGroupsTest, DecodeOfManyRows) {
  cuda::Device device = largest_device();
  device.multiprocessors = 2;
  for (int i = 0; i < rounds(12) && !HasFatalFailure(); ++i) {
    use_policy(i);
    compare(random_case(uniform(1, 16), size_near(64, 400) + 250, size_near(128, 400), any_group()), device);
  }
}

// x and scales of 16 tokens in 64 KiB: chunks of k, some of which start within a group.
TEST_F(CudaGroupsTest, DecodeInChunks) {
  cuda::Device device = largest_device();
  device.shared_bytes = 65536;
  for (int i = 0; i < rounds(6) && !HasFatalFailure(); ++i) {
    use_policy(i);
    compare(random_case(uniform(9, 16), uniform(1, 40), uniform(3'000, 9'000), any_group()), device);
  }
}

TEST_F(CudaGroupsTest, Gemm) {
  for (int i = 0; i < rounds(40) && !HasFatalFailure(); ++i) {
    use_policy(i);
    const std::int64_t m =
        i % 3 == 0 ? uniform(17, 32) : (i % 3 == 1 ? uniform(33, 64) : size_near(128, 200) + 64);
    cuda::Device device = random_device();
    device.compute_capability = i % 2 == 0 ? device.compute_capability : 80;
    compare(random_case(m, size_near(128, 200), size_near(128, 700), any_group()), device);
  }
}

// Every tile of the Hopper GEMM: more stages than the ring has, and several tiles for a block.
TEST_F(CudaGroupsTest, GemmTiles) {
  cuda::Device device = largest_device();
  if (device.compute_capability != 90) {
    GTEST_SKIP() << "no wgmma";
  }
  int tried = 0;
  for (int i = 0; i < rounds(6) && !HasFatalFailure(); ++i) {
    use_policy(i);
    device.multiprocessors = static_cast<int>(uniform(1, 2));
    const std::int64_t k = i % 2 == 0 ? uniform(5'000, 8'000) : uniform(1, 1'500);
    const std::int64_t n = i % 3 == 0 ? size_near(64, 700) : size_near(64, 140);
    const Case c = random_case(uniform(2, 40), n, k, any_group());
    tried += compare_gemm_plans(c, device, 0);
  }
  EXPECT_GE(tried, 12);
}

// Tiles that take their tokens in pieces, all of them with tokens; a last stage of the ring that K does not fill.
TEST_F(CudaGroupsTest, GemmPieces) {
  cuda::Device device = largest_device();
  if (device.compute_capability != 90) {
    GTEST_SKIP() << "no wgmma";
  }
  device.multiprocessors = 2;
  int tried = 0;
  for (int i = 0; i < rounds(8) && !HasFatalFailure(); ++i) {
    use_policy(i);
    const std::int64_t m = 129 + 64 * (i % 2) + uniform(0, 31);
    const std::int64_t k = 128 * uniform(0, 6) + 64 * uniform(1, 2);
    Case c = random_case(m, size_near(64, 140), k, i % 4 < 2 ? 128 : 64);
    while (c.scale_type != (i < 4 ? DataType::float16 : DataType::float32) || c.token_groups) {
      c = random_case(m, c.n, k, c.group);
    }
    tried += compare_gemm_plans(c, device, 128);
  }
  EXPECT_GE(tried, 16);
}

// float32 scales so large that sums with the weights' factor of 64 overflow, where those of the contract do not, and so
// small that every sum is subnormal.
TEST_F(CudaGroupsTest, GemmExtremeScales) {
  cuda::Device device = largest_device();
  device.multiprocessors = 2;
  int overflowing = 0;
  for (int i = 0; i < rounds(8) && !HasFatalFailure(); ++i) {
    use_policy(i);
    Case c = random_case(uniform(17, 40), size_near(64, 140), size_near(128, 700), i % 4 < 2 ? 128 : 64);
    c.scale_type = DataType::float32;
    c.token_groups = false;
    c.token_scale.assign(static_cast<std::size_t>(c.m), i % 2 == 0 ? 0x1p-110F : 0x1p100F);
    for (float& scale : c.scale) {
      const auto exponent = static_cast<int>(i % 2 == 0 ? uniform(109, 110) : uniform(-149, -130));
      scale = uniform(0, 9) == 0 ? 0.0F
                                 : std::ldexp(1.0F + static_cast<float>(uniform(0, 1023)) / 1024, exponent);
    }
    const std::vector<float> wanted = oracle(c);
    ASSERT_TRUE(std::ranges::all_of(wanted, [](float y) { return std::isfinite(y); }));
    // 2^122 of acc, and the bias.
    overflowing += std::ranges::any_of(wanted, [](float y) { return std::fabs(y) > 0x1p12F + 8; }) ? 1 : 0;
    compare(c, device);
    compare_gemm_plans(c, device, 0);
  }
  EXPECT_GT(overflowing, 0);
}

// They pass through, in whichever output they meet; all others stay.
TEST_F(CudaGroupsTest, GemmScalesThatAreNotNumbers) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  cuda::Device device = largest_device();
  device.multiprocessors = 2;
  for (int i = 0; i < rounds(8) && !HasFatalFailure(); ++i) {
    use_policy(i);
    Case c = random_case(uniform(17, 40), size_near(64, 140), size_near(128, 700), i % 4 < 2 ? 128 : 64);
    c.scale_type = i % 2 == 0 ? DataType::float32 : DataType::float16;
    c.token_groups = false;
    c.token_scale.assign(static_cast<std::size_t>(c.m), 0.5F);
    for (float& scale : c.scale) {
      scale = 0.0625F;
    }
    const auto any_scale = [&]() -> float& {
      return c.scale[static_cast<std::size_t>(uniform(0, std::ssize(c.scale) - 1))];
    };
    any_scale() = kInfinity;
    any_scale() = std::numeric_limits<float>::quiet_NaN();
    compare(c, device);
    compare_gemm_plans(c, device, 0);
  }
}

// One strip a warp, with two warps that share the tokens or not; two or four strips and warps that share k.
TEST_F(CudaGroupsTest, DecodePlans) {
  int tried = 0;
  for (int i = 0; i < rounds(60) && !HasFatalFailure(); ++i) {
    use_policy(i);
    cuda::Device device = largest_device();
    device.shared_bytes = i % 2 == 0 ? device.shared_bytes : 49152;
    const Case c = random_case(uniform(1, 20), size_near(64, 200), size_near(128, 2'500), any_group());
    const bool whole = i % 3 > 0;
    const cuda::DecodePlan plan{
        .strips = whole ? 1 : (c.m <= 8 && uniform(0, 1) == 0 ? 4 : 2),
        .row_warps = static_cast<std::int32_t>(uniform(1, whole && i % 2 == 0 ? 16 : 3)),
        .k_warps = static_cast<std::int32_t>(uniform(1, whole ? 2 : 5))};
    if (cuda::can_run(device, plan, c.m, c.n, c.k, c.group)) {
      SCOPED_TRACE(cuda::name_of(plan));
      compare(c, device, plan);
      ++tried;
    }
  }
  EXPECT_GE(tried, 20);
}

// Which kernel the groups of a layer take on an H200.
TEST_F(CudaGroupsTest, Choices) {
  const auto chosen = [](std::int64_t m, std::int64_t n, std::int64_t k, DataType type = DataType::float16,
                         TokenScaleGranularity token_scales = TokenScaleGranularity::token) {
    const cuda::Device h200{.compute_capability = 90, .multiprocessors = 132, .shared_bytes = 232448};
    return cuda::name_of(cuda::default_plan(h200, m, n, k, 128, type, token_scales));
  };
  EXPECT_EQ(chosen(1, 4096, 4096), "decode_one");
  EXPECT_EQ(chosen(2, 14336, 4096), "decode S2 P2 Q4");
  EXPECT_EQ(chosen(8, 4096, 14336), "decode S2 P1 Q8");
  EXPECT_EQ(chosen(8, 28672, 8192), "decode S1 P7 Q1");
  EXPECT_EQ(chosen(16, 4096, 4096), "persistent 64x16");
  EXPECT_EQ(chosen(16, 4096, 14336), "persistent 64x16");
  EXPECT_EQ(chosen(16, 14336, 4096), "decode S1 P7 Q1");
  EXPECT_EQ(chosen(16, 28672, 8192), "decode S1 P7 Q1");
  EXPECT_EQ(chosen(16, 8192, 8192), "persistent 64x16");
  EXPECT_EQ(chosen(64, 4096, 14336), "persistent 64x32");
  EXPECT_EQ(chosen(64, 8192, 8192), "persistent 128x32");
  EXPECT_EQ(chosen(64, 28672, 8192), "persistent 128x64");
  EXPECT_EQ(chosen(256, 8192, 8192), "persistent 128x128");
  EXPECT_EQ(chosen(256, 4096, 4096), "persistent 128x64");
  EXPECT_EQ(chosen(4096, 14336, 4096), "persistent 128x192");
  EXPECT_EQ(chosen(4096, 2560, 2560), "persistent 128x160");
  EXPECT_EQ(chosen(16, 4096, 4096, DataType::float32), "persistent 64x16");
  EXPECT_EQ(chosen(16, 4096, 4096, DataType::float16, TokenScaleGranularity::group), "decode S2 P1 Q16");
  // 128x112 has no form for float32 scales.
  EXPECT_EQ(chosen(112, 16384, 4096), "persistent 128x112");
  EXPECT_EQ(chosen(112, 16384, 4096, DataType::float32), "persistent 128x128");
}

TEST_F(CudaGroupsTest, EveryPlan) {
  for (int i = 0; i < rounds(24) && !HasFatalFailure(); ++i) {
    use_policy(i);
    cuda::Device device = random_device();
    device.multiprocessors = static_cast<int>(uniform(1, 4));
    device.compute_capability = i % 4 == 3 ? 80 : device.compute_capability;
    const std::int64_t m = i % 2 == 0 ? uniform(1, 16) : uniform(9, 70);
    const Case c = random_case(m, size_near(64, 200), size_near(128, 900), any_group());
    const auto plans = cuda::possible_plans(device, c.m, c.n, c.k, c.group);
    for (int tried = 0; tried < 3 && !plans.empty() && !HasFatalFailure(); ++tried) {
      const cuda::ProductPlan plan = plans[static_cast<std::size_t>(uniform(0, std::ssize(plans) - 1))];
      SCOPED_TRACE(cuda::name_of(plan));
      EXPECT_TRUE(cuda::can_run(device, plan, c.m, c.n, c.k, c.group));
      compare(c, device, plan);
    }
  }
}

TEST_F(CudaGroupsTest, Errors) {
  const DeviceArray<std::uint8_t> memory(4096);
  auto* floats = reinterpret_cast<float*>(memory.data());
  const cuda::Product good{.weights = memory.data(),
                           .out_features = 1,
                           .in_features = 1,
                           .q = reinterpret_cast<std::int8_t*>(memory.data()),
                           .token_scale = floats,
                           .tokens = 1,
                           .weight_scale = nullptr,
                           .granularity = ScaleGranularity::group,
                           .y = floats,
                           .group = 128,
                           .group_scale = floats};
  const auto message = [](const cuda::Product& args) -> std::string {
    try {
      cuda::product(largest_device(), args, nullptr);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  cuda::Product args = good;
  args.group = 100;
  EXPECT_EQ(message(args), "cuda::product: groups of 100 inputs, wanted a multiple of 32");
  args = good;
  args.granularity = ScaleGranularity::row;
  args.weight_scale = floats;
  EXPECT_EQ(message(args),
            "cuda::product: groups of 128 inputs for one scale per tensor or per row, wanted 0");
  args = good;
  args.group_scale = nullptr;
  EXPECT_NE(message(args).find("group_scale is null"), std::string::npos);
  args = good;
  args.group_scale_type = DataType::bfloat16;
  EXPECT_NE(message(args).find("wanted float32 or float16"), std::string::npos);
  args = good;
  args.granularity = ScaleGranularity::tensor;
  args.group = 0;
  args.weight_scale = floats;
  args.token_scales = TokenScaleGranularity::group;
  EXPECT_NE(message(args).find("weights without group scales"), std::string::npos);
}

}  // namespace
}  // namespace trit::test
