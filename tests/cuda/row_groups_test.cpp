// SPDX-License-Identifier: MIT
//
// The row kernels with group scales and with a rotation against the scalar code, bit for bit.
#include <array>
#include <limits>
#include <optional>

#include "cuda/special_values.h"
#include "cuda/support.h"
#include "format/golden_case.h"
#include "trit/rotation.h"

namespace trit::test {
namespace {

class CudaRowGroupsTest : public CudaTest {
 protected:
  std::int64_t any_group() {
    constexpr std::array<std::int64_t, 8> kGroups = {128, 64, 128, 32, 96, 160, 256, 1024};
    const std::int64_t i = uniform(0, 9);
    return i < 8 ? kGroups[static_cast<std::size_t>(i)] : 32 * uniform(1, 40);
  }
  /// Scalar code: returns r. `group` 0: one scale; `block` 0: no rotation.
  static float oracle(std::span<const float> x, Norm norm, const std::vector<float>& g, std::int64_t group,
                      std::int64_t block, const std::vector<std::int8_t>& signs, std::span<std::int8_t> q,
                      std::span<float> scale) {
    if (block == 0) {
      return norm_quant_groups_row(x, norm, g, 1e-6F, group, q, scale);
    }
    const float r = norm_quant_row(x, norm, {}, 1e-6F, q).rstd;
    std::vector<float> z(x.begin(), x.end());
    for (std::size_t k = 0; norm == Norm::rms && k < g.size(); ++k) {
      z[k] *= g[k];
    }
    rotate_row(z, {.block = block, .signs = signs.empty() ? nullptr : signs.data()});
    const std::size_t size = group == 0 ? z.size() : static_cast<std::size_t>(group);
    for (std::size_t first = 0; first < z.size(); first += size) {
      const auto of_group = std::span(z).subspan(first, std::min(size, z.size() - first));
      std::uint32_t largest = 0;
      for (const float value : of_group) {
        largest = std::max(largest, std::bit_cast<std::uint32_t>(value) & 0x7fffffffU);
      }
      const float max = std::bit_cast<float>(largest);
      const bool good = std::isfinite(r) && r > 0 && std::isfinite(max) && std::isfinite(r * max);
      const float absmax = std::max(r * max, 1e-5F);
      const float factor = r * (127.0F / absmax);
      scale[first / size] = good ? absmax / 127.0F : std::numeric_limits<float>::quiet_NaN();
      for (std::size_t k = 0; k < of_group.size(); ++k) {
        q[first + k] = static_cast<std::int8_t>(good ? std::nearbyintf(of_group[k] * factor) : 0.0F);
      }
    }
    return r;
  }
  /// norm_quant of m rows; group and block 0: none. More rows than 4 are more than run at a time on the one
  /// multiprocessor that there is then, so that its blocks take several.
  void compare(std::int64_t m, std::int64_t k, std::int64_t group, std::int64_t block, Norm norm,
               DataType type) {
    const bool rotated = block > 0;
    SCOPED_TRACE("M, K, group, block = " + std::to_string(m) + ", " + std::to_string(k) + ", " +
                 std::to_string(group) + ", " + std::to_string(block));
    std::vector<float> x = normals(m * k);
    const bool huge = norm == Norm::none && type != DataType::float16 && uniform(0, 5) == 0;
    for (float& value : x) {
      value *= (uniform(0, 50) == 0 ? 100.0F : 1.0F) * (huge ? 1e33F : 1.0F);
      value = type == DataType::float32 ? value : from_half(type, to_half(type, value));
    }
    if (uniform(0, 3) == 0) {
      x[static_cast<std::size_t>(uniform(0, m * k - 1))] = std::numeric_limits<float>::quiet_NaN();
    }
    if (uniform(0, 3) == 0) {
      std::fill_n(x.begin(), std::min<std::int64_t>(k, 200), 0.0F);
    }
    std::vector<std::uint16_t> halves(x.size());
    std::ranges::transform(x, halves.begin(), [&](float v) {
      return type == DataType::float32 ? std::uint16_t{0} : to_half(type, v);
    });
    const std::vector<float> g = uniform(0, 1) == 0 ? std::vector<float>{} : normals(k);
    std::vector<std::int8_t> signs;
    const bool has_signs = rotated && uniform(0, 2) != 0;
    for (std::int64_t j = 0; has_signs && j < k; ++j) {
      signs.push_back(static_cast<std::int8_t>(2 * uniform(0, 1) - 1));
    }
    const DeviceArray<float> device_x{std::span<const float>(x)};
    const DeviceArray<std::uint16_t> device_halves{std::span<const std::uint16_t>(halves)};
    const DeviceArray<float> device_g{std::span<const float>(g)};
    const DeviceArray<std::int8_t> device_signs{std::span<const std::int8_t>(signs)};
    const std::int64_t groups = groups_of(k, group);
    const std::int64_t row_bytes = cuda::quantized_row_bytes(k);
    const DeviceArray<std::int8_t> q(static_cast<std::size_t>(m * row_bytes));
    const DeviceArray<float> scale(static_cast<std::size_t>(m * groups));
    const DeviceArray<float> rstd(static_cast<std::size_t>(m));
    cuda::Device device = largest_device();
    device.multiprocessors = m > 4 ? 1 : device.multiprocessors;
    if (!rotated && uniform(0, 7) == 0) {
      device.shared_bytes = 2048;  // a row does not fit
    }
    cuda::norm_quant(
        device,
        {.x = type == DataType::float32 ? static_cast<const void*>(device_x.data()) : device_halves.data(),
         .x_type = type,
         .tokens = m,
         .in_features = k,
         .x_stride = k,
         .norm = norm,
         .norm_weight = g.empty() ? nullptr : device_g.data(),
         .q = q.data(),
         .scale = scale.data(),
         .rstd = rstd.data(),
         .group = group,
         .rotation_block = block,
         .rotation_signs = signs.empty() ? nullptr : device_signs.data()},
        nullptr);
    const std::vector<std::int8_t> found_q = values_of(q);
    const std::vector<float> found_scale = values_of(scale);
    const std::vector<float> found_rstd = values_of(rstd);
    for (std::int64_t row = 0; row < m; ++row) {
      const auto of_x = std::span(x).subspan(static_cast<std::size_t>(row * k), static_cast<std::size_t>(k));
      std::vector<std::int8_t> wanted_q(static_cast<std::size_t>(k));
      std::vector<float> wanted_scale(static_cast<std::size_t>(groups));
      const float wanted_rstd = oracle(of_x, norm, g, group, block, signs, wanted_q, wanted_scale);
      ASSERT_TRUE(same_bits(found_rstd[static_cast<std::size_t>(row)], wanted_rstd));
      for (std::int64_t j = 0; j < groups; ++j) {
        ASSERT_TRUE(same_bits(found_scale[static_cast<std::size_t>(row * groups + j)],
                              wanted_scale[static_cast<std::size_t>(j)]))
            << "group " << j;
      }
      for (std::int64_t j = 0; j < row_bytes; ++j) {
        ASSERT_EQ(found_q[static_cast<std::size_t>(row * row_bytes + j)],
                  j < k ? wanted_q[static_cast<std::size_t>(j)] : 0)
            << "row " << row << " input " << j;
      }
    }
    ++cases_;
  }
  /// pack_weights of w [n, k], `offset` floats from an address of 16 bytes.
  static void compare_pack(const std::vector<float>& w, std::int64_t n, std::int64_t k, std::int64_t group,
                           std::int64_t offset) {
    const std::vector<float> scale = absmean(w, n, k, ScaleGranularity::group, group);
    const std::int64_t groups = groups_of(k, group);
    const std::int64_t row_bytes = packed_row_bytes(k);
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(n * row_bytes));
    std::vector<std::int8_t> t(static_cast<std::size_t>(k));
    for (std::int64_t row = 0; row < n; ++row) {
      for (std::int64_t g = 0; g < groups; ++g) {
        const auto count = static_cast<std::size_t>(std::min(group, k - g * group));
        ternarize_row(std::span(w).subspan(static_cast<std::size_t>(row * k + g * group), count),
                      scale[static_cast<std::size_t>(row * groups + g)],
                      std::span(t).subspan(static_cast<std::size_t>(g * group), count));
      }
      pack_row(t, std::span(codes).subspan(static_cast<std::size_t>(row * row_bytes),
                                           static_cast<std::size_t>(row_bytes)));
    }
    const DeviceArray<float> device_scale{std::span<const float>(scale)};
    const DeviceArray<std::uint8_t> device_codes{std::span<const std::uint8_t>(codes)};
    const DeviceArray<std::uint8_t> weights(cuda::weight_bytes(n, k));
    cuda::prepare_weights(device_codes.data(), n, k, weights.data(), nullptr);
    const DeviceArray<float> prepared(cuda::group_scale_bytes(n, k, group, DataType::float32) / 4);
    cuda::prepare_group_scales(device_scale.data(), n, k, group, DataType::float32, prepared.data(), nullptr);

    const DeviceArray<float> device_w{std::span<const float>(w), static_cast<std::size_t>(offset)};
    const DeviceArray<float> packed_scale(scale.size(), 0, 2);
    const DeviceArray<std::uint8_t> packed_codes(codes.size(), 0, 2);
    const DeviceArray<std::uint8_t> packed_weights(weights.size(), 0, 2);
    const DeviceArray<float> packed_prepared(prepared.size(), 0, 2);
    cuda::pack_weights(largest_device(),
                       {.w = device_w.data(),
                        .out_features = n,
                        .in_features = k,
                        .granularity = ScaleGranularity::group,
                        .group = group,
                        .scale = packed_scale.data(),
                        .codes = packed_codes.data(),
                        .weights = packed_weights.data(),
                        .group_scale = packed_prepared.data()},
                       nullptr);
    ASSERT_TRUE(same_bits(values_of(packed_scale), scale));
    ASSERT_EQ(values_of(packed_codes), codes);
    ASSERT_EQ(values_of(packed_weights), values_of(weights));
    ASSERT_TRUE(same_bits(values_of(packed_prepared), values_of(prepared)));
  }
};

// absmean, ternarize_pack, and pack_weights.
TEST_F(CudaRowGroupsTest, Weights) {
  for (int i = 0; i < rounds(16) && !HasFatalFailure(); ++i) {
    use_policy(i);
    const std::int64_t n = size_near(64, 200);
    const std::int64_t k = i % 8 == 0 ? uniform(1, 40) : size_near(128, 700);
    const std::int64_t group = any_group();
    SCOPED_TRACE("N, K, group = " + std::to_string(n) + ", " + std::to_string(k) + ", " +
                 std::to_string(group));
    std::vector<float> w = normals(n * k);
    for (float& value : w) {
      value *= uniform(0, 30) == 0 ? 1e-6F : 0.02F;
    }
    if (i % 5 == 0) {
      std::fill_n(w.begin(), std::min<std::int64_t>(n * k, group), 0.0F);
    }
    const TernaryMatrix wanted = pack(w, n, k, ScaleGranularity::group, group);
    const DeviceArray<float> device_w{std::span<const float>(w), static_cast<std::size_t>(uniform(0, 1))};
    const DeviceArray<float> scale(wanted.scale.size());
    cuda::absmean(device_w.data(), n, k, ScaleGranularity::group, scale.data(), nullptr, nullptr, group);
    ASSERT_EQ(bits_of(values_of(scale)), bits_of(wanted.scale));
    const DeviceArray<std::uint8_t> codes(wanted.codes.size());
    cuda::ternarize_pack(device_w.data(), n, k, ScaleGranularity::group, scale.data(), codes.data(), nullptr,
                         group);
    ASSERT_EQ(values_of(codes), wanted.codes);
    compare_pack(w, n, k, group, uniform(0, 1));
    ++cases_;
  }
}

// pack_weights alone: every length of a group and of a row for which it has code of its own, and every kind of weight.
TEST_F(CudaRowGroupsTest, PackWeights) {
  constexpr std::array<std::int64_t, 8> kGroups = {128, 32, 64, 96, 160, 256, 1024, 2048};
  for (int i = 0; i < rounds(96) && !HasFatalFailure(); ++i) {
    use_policy(i);
    const std::int64_t group = kGroups[static_cast<std::size_t>(i % 8)];
    const std::int64_t n = i % 5 == 4 ? size_near(64, 200) : uniform(1, 70);
    std::int64_t k = i % 7 == 6 ? uniform(1, 8) : size_near(std::min<std::int64_t>(group, 256), 1100);
    const bool vector = i / 8 % 4 != 3;  // rows of whole 16 bytes
    k = vector ? (k + 3) / 4 * 4 : k;
    const std::int64_t offset = vector ? 0 : uniform(0, 3);
    SCOPED_TRACE("N, K, group, offset = " + std::to_string(n) + ", " + std::to_string(k) + ", " +
                 std::to_string(group) + ", " + std::to_string(offset));
    const std::int64_t kind = uniform(0, 3);
    std::vector<float> w = normals(n * k);
    for (std::size_t j = 0; j < w.size(); ++j) {
      if (kind == 1) {  // beta of an even number of them is 2, and half of them are ties at half of it
        w[j] = std::copysign(j % 2 == 0 ? 1.0F : 3.0F, w[j]);
      } else if (kind == 2) {  // so small that beta is its least value, denormals among them
        w[j] *= 1e-38F;
      }
    }
    if (kind == 3) {  // groups with NaN, those of infinite sums, and others
      w = special_values(random_, w.size(), 0.25 / static_cast<double>(std::min(group, k)));
    }
    compare_pack(w, n, k, group, offset);
    ++cases_;
  }
}

TEST_F(CudaRowGroupsTest, NormQuant) {
  for (int i = 0; i < rounds(60) && !HasFatalFailure(); ++i) {
    use_policy(i);
    const bool rotated = i % 2 == 1;
    const std::int64_t block =
        std::array<std::int64_t, 4>{512, 1024, 2048, 4096}[static_cast<std::size_t>(i / 2 % 4)];
    const bool wide = i % 15 == 7;  // eight warps and more, over several rows
    const std::int64_t m = wide ? 20 : uniform(0, 2) == 0 ? uniform(5, 40) : uniform(1, 4);
    std::int64_t k = rotated ? block * uniform(1, block > 1024 ? 2 : 5) : size_near(128, 3000);
    k = wide ? (i % 30 == 7 ? 8192 : 16384) : uniform(0, 1) == 0 ? (k + 7) / 8 * 8 : k;
    const std::int64_t group = rotated && i % 4 == 1 ? 0 : any_group();
    const Norm norm = !wide && uniform(0, 1) == 0 ? Norm::none : Norm::rms;
    const auto type = std::array{DataType::float32, DataType::bfloat16,
                                 DataType::float16}[static_cast<std::size_t>(uniform(wide ? 1 : 0, 2))];
    compare(m, k, group, rotated ? block : 0, norm, type);
  }
}

// The lengths at which norm_quant_few and norm_quant_rotated begin and end, and a warp more.
TEST_F(CudaRowGroupsTest, LengthsOfTheKernelsOfRotatedRows) {
  int i = 0;
  for (const std::int64_t k : {512, 1024, 1536, 2048, 4096, 6144, 8192, 9216, 16384}) {
    for (const std::int64_t block : {0, 512, 1024}) {
      for (const std::int64_t m : {1, 3, 7}) {
        if (block > 0 && k % block != 0) {
          continue;
        }
        use_policy(i);
        const std::int64_t group = std::array{128, 0, 256, 384}[static_cast<std::size_t>(i % 4)];
        compare(m, k, block == 0 && group == 0 ? 32 : group, block, i % 5 == 0 ? Norm::none : Norm::rms,
                i % 2 == 0 ? DataType::bfloat16 : DataType::float16);
        ++i;
      }
    }
  }
}

}  // namespace
}  // namespace trit::test
