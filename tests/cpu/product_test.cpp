// SPDX-License-Identifier: MIT
//
// q · tᵀ of every backend against plain sums in int64, exact for every shape.
#include <algorithm>
#include <numeric>

#include "cpu/support.h"

#if defined(__x86_64__)
#include "cpu/avx512_vnni/avx512_vnni.h"
#endif

namespace trit::test {
namespace {

class ProductTest : public LayoutTest {
 protected:
  QuantizedBatch random_batch(std::int64_t tokens, std::int64_t k) {
    QuantizedBatch batch(tokens, k);
    const auto padded = static_cast<std::size_t>(padded_in_features(k));
    for (std::size_t token = 0; token < static_cast<std::size_t>(tokens); ++token) {
      const std::int64_t kind = uniform(0, 4);
      std::int8_t* row = batch.q.data() + token * padded;
      for (std::int64_t i = 0; i < k; ++i) {
        const std::int64_t value = kind == 0 ? 127 : kind == 1 ? -128 : uniform(-128, 127);
        row[i] = static_cast<std::int8_t>(value);
      }
      batch.q_sum[token] = std::accumulate(row, row + padded, 0);
    }
    return batch;
  }

  // With scale 1 and no bias y is (float)acc; within 2^24 in these shapes, or rounded the same way.
  void compare(const TernaryMatrix& matrix, const QuantizedBatch& batch, Parallel& parallel) {
    const std::int64_t n = matrix.out_features;
    const std::int64_t k = matrix.in_features;
    const PackedLinear layer(kernels(), parallel, matrix.view(), layout().format);
    ASSERT_EQ(layer.format(), layout().format);
    ASSERT_EQ(layer.out_features(), n);
    ASSERT_EQ(layer.in_features(), k);
    std::vector<float> y(static_cast<std::size_t>(batch.tokens * n), -7.5F);
    layer.product(parallel, batch.rows(), nullptr, DataType::float32, y.data());
    std::vector<std::int8_t> t(static_cast<std::size_t>(k));
    const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(k));
    const std::int64_t padded = padded_in_features(k);
    for (std::int64_t row = 0; row < n; ++row) {
      unpack_row(std::span(matrix.codes).subspan(static_cast<std::size_t>(row) * row_bytes, row_bytes), t);
      for (std::int64_t token = 0; token < batch.tokens; ++token) {
        const std::int64_t sum =
            std::inner_product(t.begin(), t.end(), batch.q.begin() + token * padded, std::int64_t{0});
        ASSERT_EQ(y[static_cast<std::size_t>(token * n + row)],
                  static_cast<float>(static_cast<std::int32_t>(sum)))
            << "token " << token << " of " << batch.tokens << ", row " << row << " of " << n << ", K = " << k;
      }
    }
    ++cases_;
  }
  TernaryMatrix unit_matrix(std::int64_t rows, std::int64_t columns) {
    TernaryMatrix matrix = random_matrix(rows, columns, false);
    matrix.scale = {1.0F};
    return matrix;
  }

  std::unique_ptr<Parallel> parallel_ = make_parallel(1);
};

TEST_P(ProductTest, RandomShapes) {
  for (int i = 0; i < 1500 && !HasFatalFailure(); ++i) {
    const std::int64_t k = uniform(1, i % 10 == 0 ? 2000 : 300);
    compare(unit_matrix(uniform(1, 150), k), random_batch(uniform(1, 20), k), *parallel_);
  }
}

// Around every boundary of the tile: rows and tokens 1, tile - 1, tile, tile + 1, several tiles.
TEST_P(ProductTest, TileEdges) {
  const std::int64_t rows = layout().panel_rows;
  const std::int64_t tokens = layout().max_tokens;
  for (const std::int64_t n : {std::int64_t{1}, rows - 1, rows, rows + 1, 3 * rows, 3 * rows + 5}) {
    for (const std::int64_t m :
         {std::int64_t{1}, tokens - 1, tokens, tokens + 1, 2 * tokens, 5 * tokens + 1}) {
      for (const std::int64_t k : {1, 3, 4, 5, 63, 64, 65, 255, 256, 257, 1027}) {
        if (n > 0 && m > 0 && !HasFatalFailure()) {
          compare(unit_matrix(n, k), random_batch(m, k), *parallel_);
        }
      }
    }
  }
}

// Around the registers and register tiles inside a tile: 16 rows, 16 and 32 tokens, 64 inputs.
TEST_P(ProductTest, RegisterEdges) {
  for (const std::int64_t m : {1, 4, 5, 6, 7, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65}) {
    for (const std::int64_t n : {1, 15, 16, 17, 63, 64, 65}) {
      if (!HasFatalFailure()) {
        const std::int64_t k = uniform(1, 130);
        compare(unit_matrix(n, k), random_batch(m, k), *parallel_);
      }
    }
  }
  for (std::int64_t k = 1; k <= 130 && !HasFatalFailure(); ++k) {
    compare(unit_matrix(uniform(1, 70), k), random_batch(uniform(1, 40), k), *parallel_);
  }
  for (const std::int64_t k : {191, 192, 193, 319, 320, 321, 1151, 1152, 4095, 4096, 4097}) {
    for (const std::int64_t m : {5, 16, 18}) {
      if (!HasFatalFailure()) {
        compare(unit_matrix(65, k), random_batch(m, k), *parallel_);
      }
    }
  }
  // Regions of 16 steps and their results: four lines a step, two, one, and steps without any.
  for (const std::int64_t k : {1024, 1984, 2048, 2560, 2624, 4160, 6912, 14336}) {
    for (const std::int64_t m : {32, 50, 64}) {
      if (!HasFatalFailure()) {
        compare(unit_matrix(130, k), random_batch(m, k), *parallel_);
      }
    }
  }
}

// Blocks of many tokens, parts of panels, several threads; y large enough to go past the caches, of rows that
// end inside a cache line and of rows that do not.
TEST_P(ProductTest, ManyTokens) {
  const auto threads = make_parallel(3);
  for (const std::int64_t m : {79, 95, 127, 128, 129, 160, 255, 257, 290}) {
    for (const std::int64_t n : {31, 33, 97, 128, 200}) {
      if (!HasFatalFailure()) {
        const std::int64_t k = uniform(1, 200);
        compare(unit_matrix(n, k), random_batch(m, k), m % 2 == 0 ? *parallel_ : *threads);
      }
    }
  }
  compare(unit_matrix(65, 65540), random_batch(49, 65540), *threads);
  for (const std::int64_t n : {4096, 4101}) {
    for (const std::int64_t m : {260, 271}) {
      if (!HasFatalFailure()) {
        compare(unit_matrix(n, 70), random_batch(m, 70), *threads);
      }
    }
  }
}

// The tile by itself, as its contract says: a range of k inside longer rows, tokens any distance apart.
TEST_P(ProductTest, Tile) {
  for (int i = 0; i < random_cases(300) && !HasFatalFailure(); ++i) {
    const std::int64_t rows = layout().panel_rows;
    const std::int64_t whole = 4 * uniform(1, 100);
    const std::int64_t first = 4 * uniform(0, whole / 4 - 1);
    const std::int64_t k = 4 * uniform(1, (whole - first) / 4);
    const std::int64_t tokens = uniform(1, std::min<std::int64_t>(layout().max_tokens, 70));
    const std::int64_t stride = whole + uniform(0, 20);
    const TernaryMatrix matrix = unit_matrix(rows, whole);
    std::vector<std::uint8_t> panel(static_cast<std::size_t>(whole / 4 * layout().panel_bytes_per_4));
    layout().prepare_panel(matrix.codes.data(), whole / 4, rows, whole, panel.data());
    std::vector<std::int8_t> q(static_cast<std::size_t>(tokens * stride));
    std::generate(q.begin(), q.end(), [&] { return static_cast<std::int8_t>(uniform(-128, 127)); });
    std::vector<std::int32_t> q_sum(static_cast<std::size_t>(tokens));
    for (std::int64_t token = 0; token < tokens; ++token) {
      const auto from = q.begin() + token * stride + first;
      q_sum[static_cast<std::size_t>(token)] = std::accumulate(from, from + k, 0);
    }
    std::vector<std::int32_t> acc(static_cast<std::size_t>(layout().max_tokens * rows), -77);
    const ProductTile tile{.panel = panel.data() + first / 4 * layout().panel_bytes_per_4,
                           .q = q.data() + first,
                           .q_stride = stride,
                           .k = k,
                           .tokens = tokens,
                           .q_sum = q_sum.data(),
                           .acc = acc.data()};
    layout().product_tile(tile);
    std::vector<std::int8_t> t(static_cast<std::size_t>(whole));
    for (std::int64_t row = 0; row < rows; ++row) {
      unpack_row(std::span(matrix.codes)
                     .subspan(static_cast<std::size_t>(row * whole / 4), static_cast<std::size_t>(whole / 4)),
                 t);
      for (std::int64_t token = 0; token < tokens; ++token) {
        const std::int64_t sum = std::inner_product(t.begin() + first, t.begin() + first + k,
                                                    q.begin() + token * stride + first, std::int64_t{0});
        ASSERT_EQ(acc[static_cast<std::size_t>(token * rows + row)], sum)
            << "token " << token << " of " << tokens << ", row " << row << ", k " << first << " to "
            << first + k << " of " << whole;
      }
    }
    ++cases_;
  }
}

// The largest sums of either sign, where a 16-bit or saturating sum would fail first.
TEST_P(ProductTest, Extremes) {
  for (const std::int64_t k : {64, 256, 257, 2560, 4096, 65536, 70001}) {
    TernaryMatrix matrix = unit_matrix(layout().panel_rows + 3, k);
    const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(k));
    for (std::int64_t row = 0; row < matrix.out_features; ++row) {
      const std::vector<std::int8_t> t(static_cast<std::size_t>(k), static_cast<std::int8_t>(row % 3 - 1));
      pack_row(t, std::span(matrix.codes).subspan(static_cast<std::size_t>(row) * row_bytes, row_bytes));
    }
    QuantizedBatch batch(layout().max_tokens + 2, k);
    const std::int64_t padded = padded_in_features(k);
    for (std::int64_t token = 0; token < batch.tokens; ++token) {
      const int value = token % 2 == 0 ? -128 : 127;
      std::fill_n(batch.q.begin() + token * padded, k, static_cast<std::int8_t>(value));
      batch.q_sum[static_cast<std::size_t>(token)] = static_cast<std::int32_t>(value * k);
    }
    compare(matrix, batch, *parallel_);
  }
}

// Longer than a kernel's sums or the caches allow: several ranges of k.
TEST_P(ProductTest, LongK) {
  const auto threads = make_parallel(3);
  for (const std::int64_t k : {32767LL, 32768LL, 32769LL, 65540LL, 200003LL, 524287LL}) {
    compare(unit_matrix(3, k), random_batch(1, k), *parallel_);
    compare(unit_matrix(layout().panel_rows + 1, k), random_batch(layout().max_tokens + 1, k), *threads);
  }
}

// The largest K: |acc| = 128 * 16,777,215 = 2^31 - 128.
TEST_P(ProductTest, LargestK) {
  constexpr std::int64_t kLargest = 16777215;
  QuantizedBatch batch(1, kLargest);
  std::fill_n(batch.q.begin(), kLargest, std::int8_t{-128});
  batch.q_sum[0] = static_cast<std::int32_t>(-128 * kLargest);
  for (const unsigned byte : {0x55U, 0xffU}) {  // all +1, all -1
    TernaryMatrix matrix{
        1, kLargest, std::vector<std::uint8_t>((kLargest + 3) / 4, static_cast<std::uint8_t>(byte)), {1.0F}};
    matrix.codes.back() &= 0x3f;
    float y = 0;
    PackedLinear(kernels(), *parallel_, matrix.view(), layout().format)
        .product(*parallel_, batch.rows(), nullptr, DataType::float32, &y);
    EXPECT_EQ(y, static_cast<float>(static_cast<std::int32_t>((byte == 0x55 ? -128 : 128) * kLargest)));
  }
}

#if defined(__x86_64__)
// Processors differ in what a tile prefetches, not in what it computes.
TEST(ProductTileTest, IsTheSameOnEveryVendor) {
  if (!has_avx512_vnni()) {
    std::printf("no AVX-512 VNNI here\n");
    return;
  }
  std::mt19937_64 random(7);  // NOLINT(cert-msc51-cpp,bugprone-random-generator-seed)
  for (std::int64_t k = 4; k < 700; k += 4) {
    for (std::int64_t tokens = 1; tokens <= 6; ++tokens) {
      std::vector<std::uint8_t> panel(static_cast<std::size_t>(k * 16));
      std::ranges::generate(panel, [&] {
        const auto bits = static_cast<unsigned>(random());
        return static_cast<std::uint8_t>(bits & ~((bits & 0xAAU) >> 1U));  // fields of 0, 1, 2
      });
      std::vector<std::int8_t> q(static_cast<std::size_t>(k * tokens));
      std::ranges::generate(q, [&] { return static_cast<std::int8_t>(random()); });
      std::vector<std::int32_t> q_sum;
      for (std::int64_t token = 0; token < tokens; ++token) {
        q_sum.push_back(std::accumulate(q.begin() + token * k, q.begin() + (token + 1) * k, 0));
      }
      std::vector<std::int32_t> wanted;
      for (const CpuVendor vendor : {CpuVendor::other, CpuVendor::intel, CpuVendor::amd}) {
        std::vector<std::int32_t> acc(static_cast<std::size_t>(tokens * 64));
        avx512_vnni::product_tile_on(vendor, {.panel = panel.data(),
                                              .q = q.data(),
                                              .q_stride = k,
                                              .k = k,
                                              .tokens = tokens,
                                              .q_sum = q_sum.data(),
                                              .acc = acc.data()});
        wanted = wanted.empty() ? acc : wanted;
        ASSERT_EQ(acc, wanted) << "k = " << k << ", tokens = " << tokens;
      }
      // The same codes in groups of 32 inputs, row r of group g with the scale r + 64 g.
      std::vector<float> scales(static_cast<std::size_t>((k + 31) / 32 * 64));
      std::iota(scales.begin(), scales.end(), 0.0F);
      const GroupKernel& kernel = avx512_vnni::kGroupKernel;
      const std::int64_t stride = (k + 31) / 32 * kernel.offset_count;
      std::vector<std::int32_t> offsets(static_cast<std::size_t>(stride * tokens));
      for (std::int64_t token = 0; token < tokens; ++token) {
        kernel.offsets(q.data() + token * k, k, 32, offsets.data() + token * stride);
      }
      std::vector<float> wanted_sums;
      for (const CpuVendor vendor : {CpuVendor::other, CpuVendor::intel, CpuVendor::amd}) {
        std::vector<float> sums(static_cast<std::size_t>(tokens * 64));
        avx512_vnni::group_tile_on(vendor,
                                   {.tile = {.panel = panel.data(),
                                             .q = q.data(),
                                             .q_stride = k,
                                             .k = k,
                                             .tokens = tokens,
                                             .q_sum = nullptr,
                                             .acc = nullptr},
                                    .group = 32,
                                    .offsets = offsets.data(),
                                    .offsets_stride = stride,
                                    .weight_scale = {.values = scales.data(), .type = DataType::float32},
                                    .scale_prefetch_distance = 0,
                                    .token_scale = nullptr,
                                    .token_scale_stride = 0,
                                    .sums = sums.data()});
        wanted_sums = wanted_sums.empty() ? sums : wanted_sums;
        ASSERT_EQ(sums, wanted_sums) << "groups, k = " << k << ", tokens = " << tokens;
      }
    }
  }
}
#endif

INSTANTIATE_TEST_SUITE_P(Backends, ProductTest, testing::ValuesIn(available_layouts()), layout_name);

}  // namespace
}  // namespace trit::test
