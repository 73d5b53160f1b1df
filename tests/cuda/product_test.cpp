// SPDX-License-Identifier: MIT
//
// The products against sums of q * t in 64 bits and the scalar epilogue, bit for bit.
#include <algorithm>
#include <limits>
#include <optional>

#include "cuda/plan.h"
#include "cuda/product_support.h"

namespace trit::test {
namespace {

struct Case : Operands {
  std::vector<float> token_scale, scale, bias;
};

class CudaProductTest : public CudaOperandsTest {
 protected:
  Case random_case(std::int64_t m, std::int64_t n, std::int64_t k) {
    Case c{{m, n, k}, normals(m), normals(uniform(0, 1) == 0 ? 1 : n), normals(uniform(0, 1) == 0 ? 0 : n)};
    c.y_type = any_type();
    fill(c);
    if (uniform(0, 3) == 0) {
      c.token_scale[static_cast<std::size_t>(uniform(0, m - 1))] = std::numeric_limits<float>::quiet_NaN();
    }
    return c;
  }
  cuda::Device random_device() { return CudaOperandsTest::random_device(49152); }

  static std::vector<float> oracle(const Case& c) {
    std::vector<float> y;
    for (std::int64_t m = 0; m < c.m; ++m) {
      for (std::int64_t n = 0; n < c.n; ++n) {
        const std::int8_t* q = c.q.data() + m * c.k;
        const std::int8_t* t = c.t.data() + n * c.k;
        std::int32_t acc = 0;
        for (std::int64_t k = 0; k < c.k; ++k) {
          acc += std::int32_t{q[k]} * t[k];
        }
        y.push_back(epilogue(acc, c.token_scale[static_cast<std::size_t>(m)],
                             c.scale[c.scale.size() == 1 ? 0 : static_cast<std::size_t>(n)],
                             c.bias.empty() ? nullptr : &c.bias[static_cast<std::size_t>(n)]));
      }
    }
    return y;
  }

  // Runs the case `launches` times on one workspace, which must be left as it was.
  template <typename Element>
  void compare_as(const Case& c, const cuda::Device& device, int launches,
                  const std::optional<cuda::ProductPlan>& plan) {
    const std::vector<std::uint8_t> codes = c.codes();
    const DeviceArray<std::uint8_t> device_codes{std::span<const std::uint8_t>(codes)};
    const DeviceArray<std::uint8_t> weights(cuda::weight_bytes(c.n, c.k));
    cuda::prepare_weights(device_codes.data(), c.n, c.k, weights.data(), nullptr);
    const std::vector<std::int8_t> padded = c.padded_q();
    const DeviceArray<std::int8_t> q{std::span<const std::int8_t>(padded)};
    const DeviceArray<float> token_scale{std::span<const float>(c.token_scale)};
    const DeviceArray<float> scale{std::span<const float>(c.scale)};
    const DeviceArray<float> bias{std::span<const float>(c.bias)};
    const DeviceArray<Element> y(static_cast<std::size_t>(c.m * c.n),
                                 static_cast<std::size_t>(uniform(0, 3)));
    const std::vector<std::uint8_t> zeros(plan ? cuda::product_workspace_bytes(device, *plan, c.m, c.n, c.k)
                                               : cuda::product_workspace_bytes(device, c.m, c.n, c.k));
    const DeviceArray<std::uint8_t> workspace{std::span<const std::uint8_t>(zeros)};
    for (int i = 0; i < launches; ++i) {
      const cuda::Product product{
          .weights = weights.data(),
          .out_features = c.n,
          .in_features = c.k,
          .q = q.data(),
          .token_scale = token_scale.data(),
          .tokens = c.m,
          .weight_scale = scale.data(),
          .granularity = c.scale.size() == 1 ? ScaleGranularity::tensor : ScaleGranularity::row,
          .bias = c.bias.empty() ? nullptr : bias.data(),
          .y_type = c.y_type,
          .y = y.data(),
          .workspace = workspace.data(),
          .programmatic = uniform(0, 1) == 0 && device.compute_capability >= 90};
      plan ? cuda::product(device, *plan, product, nullptr) : cuda::product(device, product, nullptr);
    }
    ASSERT_EQ(values_of(workspace), zeros);
    assert_results(c, values_of(y), oracle(c));
    ++cases_;
  }
  void compare(const Case& c, const cuda::Device& device, int launches = 1,
               const std::optional<cuda::ProductPlan>& plan = std::nullopt) {
    c.y_type == DataType::float32 ? compare_as<float>(c, device, launches, plan)
                                  : compare_as<std::uint16_t>(c, device, launches, plan);
  }
};

// What the autotuner may choose: the table's plan and others, and none that can_run() denies.
TEST_F(CudaProductTest, EveryPlanHasTheSameBits) {
  for (int i = 0; i < rounds(40) && !HasFatalFailure(); ++i) {
    use_policy(i);
    cuda::Device device = random_device();
    device.multiprocessors = static_cast<int>(uniform(1, 4));  // so that small shapes have many plans
    device.compute_capability = i % 4 == 3 ? 80 : device.compute_capability;
    const std::int64_t m = i % 2 == 0 ? uniform(1, 16) : uniform(9, 70);
    const Case c = random_case(m, size_near(64, 300), size_near(128, 1500));
    const cuda::ProductPlan table = cuda::default_plan(device, c.m, c.n, c.k);
    EXPECT_TRUE(cuda::can_run(device, table, c.m, c.n, c.k)) << cuda::name_of(table);
    std::vector<cuda::ProductPlan> plans = cuda::possible_plans(device, c.m, c.n, c.k);
    for (int tried = 0; tried < 3 && !plans.empty() && !HasFatalFailure(); ++tried) {
      const cuda::ProductPlan plan = plans[static_cast<std::size_t>(uniform(0, std::ssize(plans) - 1))];
      SCOPED_TRACE(cuda::name_of(plan));
      EXPECT_TRUE(cuda::can_run(device, plan, c.m, c.n, c.k));
      EXPECT_EQ(cuda::plan_from_name(cuda::name_of(plan)), plan);
      compare(c, device, 2, plan);
    }
    compare(c, device, 1, table);
  }
  const cuda::Device device = largest_device();
  for (const cuda::ProductPlan& plan :
       {cuda::ProductPlan(cuda::DecodePlan{4, 1, 1}), cuda::ProductPlan(cuda::DecodePlan{3, 1, 1}),
        cuda::ProductPlan(cuda::DecodePlan{2, 4, 8}), cuda::ProductPlan(cuda::DecodePlan{2, 1, 0}),
        cuda::ProductPlan(cuda::GemmSm80Plan{48, 1}), cuda::ProductPlan(cuda::GemmSm80Plan{64, 30}),
        cuda::ProductPlan(cuda::GemmSm90Plan{true, 256, 72, 1}),
        cuda::ProductPlan(cuda::GemmSm90Plan{true, 256, 128, 2}),
        cuda::ProductPlan(cuda::GemmSm90Plan{false, 256, 96, 5})}) {
    EXPECT_FALSE(cuda::can_run(device, plan, 9, 100, 1000)) << cuda::name_of(plan);
  }
  EXPECT_FALSE(cuda::can_run(device, cuda::DecodePlan{2, 1, 1}, 17, 100, 1000));
  EXPECT_FALSE(cuda::can_run(device, cuda::GemmSm90Plan{false, 128, 32, 5}, 9, 100, 1000));
}

// The fastest of all plans at these shapes on an H200, or within 5 % of it (bench_cuda --tune).
TEST(CudaPlans, TableOfMeasuredShapes) {
  const cuda::Device h200{.compute_capability = 90, .multiprocessors = 132, .shared_bytes = 232448};
  const auto chosen = [&](std::int64_t m, std::int64_t n, std::int64_t k) {
    return cuda::name_of(cuda::default_plan(h200, m, n, k));
  };
  EXPECT_EQ(chosen(1, 4096, 4096), "decode_one");
  EXPECT_EQ(chosen(8, 4096, 4096), "decode S2 P1 Q12");
  EXPECT_EQ(chosen(8, 6912, 2560), "decode S2 P2 Q8");
  EXPECT_EQ(chosen(8, 14336, 4096), "decode S2 P2 Q5");
  EXPECT_EQ(chosen(8, 28672, 8192), "decode S4 P4 Q4");
  EXPECT_EQ(chosen(16, 4096, 4096), "decode S2 P1 Q16");
  EXPECT_EQ(chosen(16, 8192, 8192), "decode S2 P2 Q6");
  EXPECT_EQ(chosen(16, 28672, 8192), "decode S2 P8 Q2");
  EXPECT_EQ(chosen(16, 1024, 8192), "split 128x32 / 8");
  EXPECT_EQ(chosen(17, 4096, 4096), "split 128x32 / 3");
}

TEST_F(CudaProductTest, Decode) {
  for (int i = 0; i < rounds(200) && !HasFatalFailure(); ++i) {
    use_policy(i);
    const std::int64_t m = uniform(1, 16);
    compare(random_case(m, size_near(64, 300), size_near(128, 900)), random_device());
  }
}

// One token has kernels of its own. Where all blocks fit at once and k is short, a warp's part of it is in
// registers: one strip's, two strips' (programmatic launch or more rows) or, from 4,097 inputs on, two tiles
// of two strips; a last warp may have one tile of its two. Few multiprocessors and long k take the ring, with
// one unit of x a thread or more than two, and parts of different lengths.
TEST_F(CudaProductTest, DecodeOfOneToken) {
  for (int i = 0; i < rounds(240) && !HasFatalFailure(); ++i) {
    use_policy(i);
    const bool is_long = i % 8 <= 1;
    const std::int64_t k =
        i % 8 == 0 ? uniform(8'000, 20'000) : (i % 8 == 1 ? uniform(4'000, 8'300) : size_near(128, 3000));
    compare(random_case(1, size_near(64, is_long ? 70 : 400), k), random_device());
  }
}

// Four strips a warp need many rows per multiprocessor.
TEST_F(CudaProductTest, DecodeOfManyRows) {
  cuda::Device device = largest_device();
  device.multiprocessors = 2;
  for (int i = 0; i < rounds(16) && !HasFatalFailure(); ++i) {
    use_policy(i);
    compare(random_case(uniform(1, 16), size_near(64, 400) + 250, size_near(128, 400)), device);
  }
}

// x of 16 tokens in 48 KiB: chunks of about 2,900 inputs.
TEST_F(CudaProductTest, DecodeInChunks) {
  cuda::Device device = largest_device();
  device.shared_bytes = 49152;
  int i = 0;
  for (const std::int64_t k : {2'900, 3'001, 6'000, 9'999, 20'001}) {
    use_policy(i++);
    compare(random_case(16, uniform(1, 40), k), device);
  }
}

TEST_F(CudaProductTest, Gemm) {
  for (int i = 0; i < rounds(90) && !HasFatalFailure(); ++i) {
    use_policy(i);
    const std::int64_t m =
        i % 3 == 0 ? uniform(17, 32) : (i % 3 == 1 ? uniform(33, 64) : size_near(128, 200) + 64);
    cuda::Device device = random_device();
    device.compute_capability = i % 4 == 0 ? device.compute_capability : 80;  // most for mma.sync
    compare(random_case(m, size_near(128, 300), size_near(128, 700)), device);
  }
}

// Blocks of tokens go in groups of 8, which the last one does not fill.
TEST_F(CudaProductTest, GemmOfManyTokens) {
  cuda::Device device = largest_device();
  device.compute_capability = 80;
  for (int i = 0; i < rounds(6) && !HasFatalFailure(); ++i) {
    use_policy(i);
    compare(random_case(uniform(513, 1200), size_near(256, 500) + 200, uniform(1, 300)), device);
  }
}

// Few tiles on a large device: k is split over blocks, and one workspace serves launch after launch.
TEST_F(CudaProductTest, GemmWithSplitK) {
  cuda::Device device = largest_device();
  device.compute_capability = 80;
  for (int i = 0; i < rounds(12) && !HasFatalFailure(); ++i) {
    use_policy(i);
    Case c = random_case(uniform(17, 140), size_near(128, 200), size_near(1024, 2000) + 2048);
    ASSERT_GT(cuda::product_workspace_bytes(device, c.m, c.n, c.k), 0U);
    compare(c, device, 2);
  }
}

// 64 * 128 * K is 2^31 at K = 262,144: with q = -128 and t = +1 everywhere one sum too long overflows.
TEST_F(CudaProductTest, BeyondOneInt32Sum) {
  cuda::Device device = largest_device();
  device.multiprocessors = 1;
  for (const std::int64_t k : {262'016, 262'144, 300'001}) {
    for (const std::int64_t m : {1, 17}) {
      Case c{{m, 3, k}, std::vector<float>(static_cast<std::size_t>(m), 0.5F), {0.25F}, {}};
      c.q.assign(static_cast<std::size_t>(m * k), -128);
      c.t.assign(static_cast<std::size_t>(3 * k), 1);
      compare(c, device);
    }
  }
}

TEST_F(CudaProductTest, NoTokens) {
  EXPECT_EQ(cuda::product_workspace_bytes(largest_device(), 0, 70, 30), 0U);
  cuda::product(largest_device(),
                {.weights = nullptr,
                 .out_features = 70,
                 .in_features = 30,
                 .q = nullptr,
                 .token_scale = nullptr,
                 .weight_scale = nullptr},
                nullptr);
}

TEST_F(CudaProductTest, Errors) {
  const DeviceArray<std::uint8_t> memory(4096);
  auto* floats = reinterpret_cast<float*>(memory.data());
  const cuda::Product good{.weights = memory.data(),
                           .out_features = 1,
                           .in_features = 1,
                           .q = reinterpret_cast<std::int8_t*>(memory.data()),
                           .token_scale = floats,
                           .tokens = 1,
                           .weight_scale = floats,
                           .y = floats};
  const auto message = [](const cuda::Device& device, const cuda::Product& args) -> std::string {
    try {
      cuda::product(device, args, nullptr);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  cuda::Device old = largest_device();
  old.compute_capability = 75;
  EXPECT_EQ(message(old, good),
            "cuda::product: no kernel for 1 tokens on compute capability 7.5, wanted 8.0 or newer");
  cuda::Product args = good;
  args.in_features = cuda::kMaxInFeatures + 1;
  EXPECT_NE(message(largest_device(), args).find("wanted 1 .. 2147483584 rows and 1 .. 16777215 columns"),
            std::string::npos);
  args = good;
  args.y = memory.data() + 2;
  EXPECT_NE(message(largest_device(), args).find("y is at an address that is 2 modulo 4"), std::string::npos);
  args = good;
  args.tokens = 20;
  args.in_features = 4000;
  cuda::Device ampere = largest_device();
  ampere.compute_capability = 80;
  EXPECT_NE(message(ampere, args).find("workspace is null"), std::string::npos);
}

}  // namespace
}  // namespace trit::test
