// SPDX-License-Identifier: MIT
//
// absmean, ternarize_pack and prepare_weights against src/format.
#include <algorithm>
#include <limits>

#include "cuda/support.h"

namespace trit::test {
namespace {

class CudaWeightsTest : public CudaTest {
 protected:
  std::vector<float> random_weights(std::int64_t count) {
    std::vector<float> w = normals(count);
    const std::int64_t kind = uniform(0, 4);
    for (float& v : w) {
      if (kind == 1) {  // ties at half of beta, and signed zeros
        v = static_cast<float>(uniform(-3, 3)) / 2;
      } else if (kind == 2) {  // any finite float
        v = std::bit_cast<float>(static_cast<std::uint32_t>(random_()) & 0xbfffffffU);
      } else if (kind == 3) {  // so small that beta is its least value
        v = std::bit_cast<float>(static_cast<std::uint32_t>(random_()) & 0x807fffffU);
      }
    }
    return w;
  }

  static std::vector<float> run_absmean(const std::vector<float>& w, std::int64_t n, std::int64_t k,
                                        ScaleGranularity granularity) {
    const DeviceArray<float> weights{std::span<const float>(w), 1};  // 4-byte alignment is enough
    const DeviceArray<float> scale(granularity == ScaleGranularity::row ? static_cast<std::size_t>(n) : 1);
    const DeviceArray<std::uint8_t> workspace(cuda::absmean_workspace_bytes(n));
    cuda::absmean(weights.data(), n, k, granularity, scale.data(), workspace.data(), nullptr);
    return values_of(scale);
  }

  // frag64x128 by its description: where each weight t[n][k] lies.
  static std::vector<std::uint8_t> fragments(const std::vector<std::int8_t>& t, std::int64_t n,
                                             std::int64_t k) {
    const std::int64_t tiles_along_k = (k + 127) / 128;
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>((n + 63) / 64 * tiles_along_k * 2048));
    for (std::int64_t row = 0; row < n; ++row) {
      for (std::int64_t column = 0; column < k; ++column) {
        const std::int64_t tile = row / 64 * tiles_along_k + column / 128;
        const std::int64_t lane = row % 8 * 4 + column % 16 / 4;
        const std::int64_t word = column % 128 / 32;
        const std::int64_t fragment_register = row % 16 / 8 + column % 32 / 16 * 2;
        const std::int64_t at = tile * 2048 + row % 64 / 16 * 512 + lane * 16 + word * 4 + column % 4;
        const auto code = static_cast<unsigned>(t[static_cast<std::size_t>(row * k + column)]) & 3U;
        bytes[static_cast<std::size_t>(at)] |= static_cast<std::uint8_t>(code << (6 - 2 * fragment_register));
      }
    }
    return bytes;
  }
};

constexpr std::array kGranularities = {ScaleGranularity::tensor, ScaleGranularity::row};

TEST_F(CudaWeightsTest, Absmean) {
  for (int i = 0; i < rounds(120) && !HasFatalFailure(); ++i) {
    use_policy(i);
    // Many rows, each a block of 256 threads to the emulator: several to one of the second stage's 256 accumulators.
    const bool tall = i % 12 == 4;
    const std::int64_t n = tall ? uniform(500, 1100) : size_near(16, 40);
    const std::int64_t k = tall ? uniform(1, 4) : size_near(256, 2600);
    const std::vector<float> w = random_weights(n * k);
    for (const ScaleGranularity granularity : kGranularities) {
      ASSERT_TRUE(same_bits(run_absmean(w, n, k, granularity), absmean(w, n, k, granularity)))
          << n << " x " << k;
      ++cases_;
    }
  }
}

// Rows 0, 256, 512, ... meet in one accumulator of the second stage: 2^24 + 1 + 1 + ... is lost in fp32.
TEST_F(CudaWeightsTest, AbsmeanAddsRowsInFp64) {
  std::vector<float> w(4000, 1.0F);
  w[0] = 16'777'216.0F;
  EXPECT_TRUE(same_bits(run_absmean(w, 4000, 1, ScaleGranularity::tensor),
                        absmean(w, 4000, 1, ScaleGranularity::tensor)));
}

TEST_F(CudaWeightsTest, NanPassesThroughAbsmean) {
  std::vector<float> w = normals(3 * 700);
  w[700 + 5] = -std::numeric_limits<float>::quiet_NaN();
  for (const ScaleGranularity granularity : kGranularities) {
    EXPECT_TRUE(same_bits(run_absmean(w, 3, 700, granularity), absmean(w, 3, 700, granularity)));
  }
  w[700 + 5] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(
      same_bits(run_absmean(w, 3, 700, ScaleGranularity::row), absmean(w, 3, 700, ScaleGranularity::row)));
}

// The stored form, and both ways to the prepared one, which must agree with each other.
TEST_F(CudaWeightsTest, TernarizeAndPrepare) {
  for (int i = 0; i < rounds(100) && !HasFatalFailure(); ++i) {
    use_policy(i);
    const std::int64_t n = size_near(64, 200);
    const std::int64_t k = size_near(128, 600);
    std::vector<float> w = random_weights(n * k);
    const ScaleGranularity granularity = kGranularities[static_cast<std::size_t>(i % 2)];
    const std::vector<float> scale = absmean(w, n, k, granularity);
    if (uniform(0, 3) == 0) {
      w[static_cast<std::size_t>(uniform(0, n * k - 1))] = std::numeric_limits<float>::quiet_NaN();
      w[static_cast<std::size_t>(uniform(0, n * k - 1))] = -std::numeric_limits<float>::infinity();
    }
    const DeviceArray<float> weights{std::span<const float>(w), static_cast<std::size_t>(uniform(0, 1))};
    const DeviceArray<float> scales{std::span<const float>(scale)};
    const DeviceArray<std::uint8_t> codes(static_cast<std::size_t>(n * packed_row_bytes(k)));
    cuda::ternarize_pack(weights.data(), n, k, granularity, scales.data(), codes.data(), nullptr);

    std::vector<std::uint8_t> wanted(codes.size());
    std::vector<std::int8_t> t(static_cast<std::size_t>(n * k));
    for (std::int64_t row = 0; row < n; ++row) {
      const auto of_row =
          std::span(t).subspan(static_cast<std::size_t>(row * k), static_cast<std::size_t>(k));
      ternarize_row(
          std::span<const float>(w).subspan(static_cast<std::size_t>(row * k), static_cast<std::size_t>(k)),
          scale[scale.size() == 1 ? 0 : static_cast<std::size_t>(row)], of_row);
      pack_row(of_row, std::span(wanted).subspan(static_cast<std::size_t>(row * packed_row_bytes(k)),
                                                 static_cast<std::size_t>(packed_row_bytes(k))));
    }
    ASSERT_EQ(values_of(codes), wanted) << n << " x " << k;

    const std::size_t bytes = cuda::weight_bytes(n, k);
    const DeviceArray<std::uint8_t> from_codes(bytes, 0, 1);
    cuda::prepare_weights(codes.data(), n, k, from_codes.data(), nullptr);
    ASSERT_EQ(values_of(from_codes), fragments(t, n, k)) << n << " x " << k;
    ++cases_;
  }
}

// One launch instead of three: the same bits, again and again on one counter, however many blocks share the
// work.
TEST_F(CudaWeightsTest, PackWeights) {
  const DeviceArray<std::int32_t> counter{std::span<const std::int32_t>(std::array<std::int32_t, 1>{0})};
  for (int i = 0; i < rounds(60) && !HasFatalFailure(); ++i) {
    use_policy(i);
    const std::int64_t n = size_near(64, 200);
    const std::int64_t k = size_near(128, 700);
    cuda::Device device = largest_device();
    device.multiprocessors = static_cast<int>(uniform(1, 3));
    std::vector<float> w = random_weights(n * k);
    if (uniform(0, 4) == 0) {
      constexpr float kInf = std::numeric_limits<float>::infinity();
      w[static_cast<std::size_t>(uniform(0, n * k - 1))] =
          uniform(0, 1) == 0 ? -kInf : std::numeric_limits<float>::quiet_NaN();
    }
    const ScaleGranularity granularity = kGranularities[static_cast<std::size_t>(i % 2)];
    const DeviceArray<float> weights{std::span<const float>(w), static_cast<std::size_t>(uniform(0, 1))};
    const std::size_t scales = granularity == ScaleGranularity::row ? static_cast<std::size_t>(n) : 1;
    const DeviceArray<float> scale(scales);
    const DeviceArray<float> row_sums(static_cast<std::size_t>(n));
    const DeviceArray<std::uint8_t> codes(static_cast<std::size_t>(n * packed_row_bytes(k)));
    const DeviceArray<std::uint8_t> prepared(cuda::weight_bytes(n, k));
    cuda::pack_weights(device,
                       {.w = weights.data(),
                        .out_features = n,
                        .in_features = k,
                        .granularity = granularity,
                        .scale = scale.data(),
                        .codes = codes.data(),
                        .weights = prepared.data(),
                        .row_sums = row_sums.data(),
                        .counter = counter.data()},
                       nullptr);
    ASSERT_EQ(values_of(counter), std::vector<std::int32_t>{0});
    ASSERT_TRUE(same_bits(values_of(scale), absmean(w, n, k, granularity))) << n << " x " << k;
    const DeviceArray<std::uint8_t> wanted_codes(codes.size(), 0, 1);
    const DeviceArray<std::uint8_t> wanted(prepared.size(), 0, 1);
    cuda::ternarize_pack(weights.data(), n, k, granularity, scale.data(), wanted_codes.data(), nullptr);
    cuda::prepare_weights(wanted_codes.data(), n, k, wanted.data(), nullptr);
    ASSERT_EQ(values_of(codes), values_of(wanted_codes)) << n << " x " << k;
    ASSERT_EQ(values_of(prepared), values_of(wanted)) << n << " x " << k;
    ++cases_;
  }
}

TEST_F(CudaWeightsTest, Errors) {
  const DeviceArray<std::uint8_t> memory(1024);
  const auto message = [](auto&& call) -> std::string {
    try {
      call();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(message([&] { cuda::prepare_weights(memory.data(), 4, 16'777'216, memory.data(), nullptr); }),
            "cuda::prepare_weights: a matrix of 4 x 16777216, wanted 1 .. 2147483584 rows and 1 .. 16777215 "
            "columns");
  EXPECT_EQ(message([&] { cuda::prepare_weights(memory.data(), 1, 1, memory.data() + 8, nullptr); }),
            "cuda::prepare_weights: weights is at an address that is 8 modulo 16, wanted a device pointer "
            "aligned to 16 bytes");
  EXPECT_EQ(message([&] {
              cuda::absmean(nullptr, 1, 1, ScaleGranularity::row, reinterpret_cast<float*>(memory.data()),
                            nullptr, nullptr);
            }),
            "cuda::absmean: w is null, wanted a device pointer aligned to 4 bytes");
  const auto floats = reinterpret_cast<float*>(memory.data());
  for (const std::string& refusal :
       {message([&] { cuda::absmean(floats, 4, 64, ScaleGranularity::group, floats, nullptr, nullptr); }),
        message([&] {
          cuda::ternarize_pack(floats, 4, 64, ScaleGranularity::group, floats, memory.data(), nullptr);
        })}) {
    EXPECT_NE(refusal.find("groups of 0 inputs, wanted a multiple of 32"), std::string::npos) << refusal;
  }
}

}  // namespace
}  // namespace trit::test
