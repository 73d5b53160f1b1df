// SPDX-License-Identifier: MIT
//
// The whole layer: norm_quant and PackedLinear of every backend against
// bit_linear_row, threads, callers, errors.
#include <algorithm>
#include <array>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <limits>
#include <thread>

#include "child_process.h"
#include "cpu/support.h"
#include "trit/error.h"

namespace trit::test {
namespace {

// Runs the tasks on the calling thread, the last one first, and claims many threads: work is cut as finely as
// it ever is, and a task that writes outside its own outputs spoils one that is done.
class BackwardParallel final : public Parallel {
 public:
  int threads() const override { return 64; }
  void run(std::int64_t tasks, const std::function<void(std::int64_t)>& task) override {
    for (std::int64_t i = tasks - 1; i >= 0; --i) {
      task(i);
    }
  }
};

class LinearTest : public LayoutTest {
 protected:
  struct Layer {
    TernaryMatrix matrix;
    std::vector<float> x, norm_weight, bias;
    std::int64_t tokens;
    Norm norm;
  };
  Layer random_layer(std::int64_t m, std::int64_t n, std::int64_t k) {
    Layer layer{random_matrix(n, k, uniform(0, 1) == 0),    {}, {}, {}, m,
                uniform(0, 1) == 0 ? Norm::none : Norm::rms};
    layer.x.resize(static_cast<std::size_t>(m * k));
    std::generate(layer.x.begin(), layer.x.end(), [&] { return normal(); });
    layer.norm_weight.resize(static_cast<std::size_t>(k));
    std::generate(layer.norm_weight.begin(), layer.norm_weight.end(), [&] { return 1 + normal() / 8; });
    layer.bias.resize(uniform(0, 1) == 0 ? 0 : static_cast<std::size_t>(n));
    std::generate(layer.bias.begin(), layer.bias.end(), [&] { return normal(); });
    return layer;
  }
  template <typename Value = float>
  std::vector<Value> run(const Layer& layer, const PackedLinear& packed, Parallel& parallel,
                         DataType type = DataType::float32) const {
    const std::int64_t k = layer.matrix.in_features;
    QuantizedBatch batch(layer.tokens, k);
    norm_quant(kernels(), parallel,
               {.x = layer.x.data(),
                .tokens = layer.tokens,
                .in_features = k,
                .x_stride = k,
                .norm = layer.norm,
                .norm_weight = layer.norm_weight.data(),
                .q = batch.q.data(),
                .scale = batch.scale.data(),
                .q_sum = batch.q_sum.data()});
    std::vector<Value> y(static_cast<std::size_t>(layer.tokens * layer.matrix.out_features), Value{99});
    packed.product(parallel, batch.rows(), layer.bias.empty() ? nullptr : layer.bias.data(), type, y.data());
    return y;
  }
  std::vector<float> run(const Layer& layer, Parallel& parallel) const {
    return run(layer, PackedLinear(kernels(), parallel, layer.matrix.view(), layout().format), parallel);
  }
  static std::vector<float> oracle(const Layer& layer) {
    std::vector<float> y;
    const auto k = static_cast<std::size_t>(layer.matrix.in_features);
    std::vector<float> row(static_cast<std::size_t>(layer.matrix.out_features));
    for (std::size_t token = 0; token < static_cast<std::size_t>(layer.tokens); ++token) {
      bit_linear_row(
          std::span(layer.x).subspan(token * k, k), layer.matrix.view(), layer.norm,
          layer.norm == Norm::rms ? std::span<const float>(layer.norm_weight) : std::span<const float>(),
          1e-6F, layer.bias, row);
      y.insert(y.end(), row.begin(), row.end());
    }
    return y;
  }
};

TEST_P(LinearTest, RandomLayers) {
  const auto parallel = make_parallel(1);
  for (int i = 0; i < random_cases(600) && !HasFatalFailure(); ++i) {
    const Layer layer = random_layer(uniform(1, 14), uniform(1, 140), uniform(1, 700));
    const std::vector<float> wanted = oracle(layer);
    const PackedLinear packed(kernels(), *parallel, layer.matrix.view(), layout().format);
    ASSERT_TRUE(same_bits(run(layer, packed, *parallel), wanted));
    const DataType type = i % 2 == 0 ? DataType::bfloat16 : DataType::float16;
    const auto half = run<std::uint16_t>(layer, packed, *parallel, type);
    for (std::size_t j = 0; j < half.size(); ++j) {
      ASSERT_TRUE(same_half(type, half[j], to_half(type, wanted[j]))) << j;
    }
    cases_ += 2;
  }
}

// Shapes that are cut along rows, along tokens, and along both.
TEST_P(LinearTest, AnyNumberOfThreads) {
  for (const auto& [m, n, k] : {std::array<std::int64_t, 3>{1, 1000, 2000},
                                {7, 513, 1025},
                                {300, 10, 999},
                                {64, 700, 300},
                                {33, 65, 70000}}) {
    const Layer layer = random_layer(m, n, k);
    const std::vector<float> wanted = oracle(layer);
    for (const int threads : {1, 2, 3, 7}) {
      const auto parallel = make_parallel(threads);
      ASSERT_TRUE(same_bits(run(layer, *parallel), wanted))
          << threads << " threads, M = " << m << ", N = " << n;
      ++cases_;
    }
    BackwardParallel backward;
    ASSERT_TRUE(same_bits(run(layer, backward), wanted)) << "backward, M = " << m << ", N = " << n;
  }
}

TEST_P(LinearTest, ManyCallersShareALayerAndATeam) {
  const auto parallel = make_parallel(2);
  const Layer layer = random_layer(40, 200, 900);
  const std::vector<float> wanted = oracle(layer);
  const PackedLinear packed(kernels(), *parallel, layer.matrix.view(), layout().format);
  std::array<bool, 4> same{};
  std::vector<std::thread> callers;
  for (bool& mine : same) {
    callers.emplace_back([&] {
      mine = true;
      for (int i = 0; i < 10; ++i) {
        mine = mine && same_bits(run(layer, packed, *parallel), wanted);
      }
    });
  }
  for (std::thread& caller : callers) {
    caller.join();
  }
  EXPECT_EQ(same, (std::array{true, true, true, true}));
}

// fork() copies the calling thread alone, without its team.
TEST_P(LinearTest, InAChildOfFork) {
  const auto parallel = make_parallel(2);
  for (const std::int64_t tokens : {1, 70}) {
    const Layer layer = random_layer(tokens, 600, 900);
    const std::vector<float> wanted = oracle(layer);
    const PackedLinear packed(kernels(), *parallel, layer.matrix.view(), layout().format);
    ASSERT_TRUE(same_bits(run(layer, packed, *parallel), wanted));
    EXPECT_TRUE(holds_in_child([&]() -> bool { return same_bits(run(layer, packed, *parallel), wanted); }));
    EXPECT_TRUE(holds_in_child(
        [&]() -> bool { return same_bits(run(layer, *parallel), wanted); }));  // prepared there
  }
}

TEST_P(LinearTest, NoTokens) {
  const auto parallel = make_parallel(2);
  const PackedLinear packed(kernels(), *parallel, random_matrix(70, 30, true).view(), layout().format);
  packed.product(*parallel, {nullptr, nullptr, nullptr, 0}, nullptr, DataType::float32, nullptr);
  norm_quant(kernels(), *parallel, {.x = nullptr, .tokens = 0, .in_features = 30});
}

// The layer keeps nothing of the view that it was made from, and can be moved.
TEST_P(LinearTest, OwnsItsWeights) {
  const auto parallel = make_parallel(1);
  Layer layer = random_layer(3, 50, 60);
  const std::vector<float> wanted = oracle(layer);
  PackedLinear first(kernels(), *parallel, layer.matrix.view(), layout().format);
  std::fill(layer.matrix.codes.begin(), layer.matrix.codes.end(), std::uint8_t{0});
  std::fill(layer.matrix.scale.begin(), layer.matrix.scale.end(), 0.0F);
  const PackedLinear second = std::move(first);
  EXPECT_TRUE(same_bits(run(layer, second, *parallel), wanted));
  EXPECT_EQ(&second.kernels(), &kernels());
  EXPECT_GE(second.bytes(), 50U * 15U);
}

TEST_P(LinearTest, AFormatThatTheBackendLacksGivesItsDefault) {
  const auto parallel = make_parallel(1);
  const auto format_for = [&](PanelFormat format) {
    return PackedLinear(kernels(), *parallel, random_matrix(70, 30, false).view(), format).format();
  };
  EXPECT_EQ(format_for(layout().format), layout().format);
  EXPECT_EQ(format_for(PanelFormat::automatic), kernels().layouts.front().format);
  if (available_formats(kernels()).size() == 1) {
    EXPECT_EQ(format_for(PanelFormat::base3), PanelFormat::two_bit);
  }
}

// Before a matrix's rows are prepared each of them is shown once, and after all of them its end, once.
TEST_P(LinearTest, HooksSeeEveryRowOnce) {
  const auto parallel = make_parallel(2);
  std::vector<TernaryMatrix> matrices;
  std::vector<TernaryView> weights;
  for (int i = 0; i < 5; ++i) {
    matrices.push_back(random_matrix(uniform(1, 3000), uniform(1, 900), false));
  }
  std::vector<std::vector<std::uint8_t>> shown;
  for (const TernaryMatrix& matrix : matrices) {
    weights.push_back(matrix.view());
    shown.emplace_back(matrix.codes.size(), std::uint8_t{2});  // never a code
  }
  std::vector<std::atomic<std::int64_t>> rows(matrices.size());
  std::vector<std::atomic<int>> ends(matrices.size());
  PreparationHooks hooks;
  hooks.before_rows = [&](std::size_t matrix, std::int64_t first_row, std::span<const std::uint8_t> codes) {
    const std::int64_t row_bytes = packed_row_bytes(weights[matrix].in_features);
    std::ranges::copy(codes, shown[matrix].begin() + first_row * row_bytes);
    rows[matrix] += std::ssize(codes) / row_bytes;
  };
  hooks.after_matrix = [&](std::size_t matrix) {
    EXPECT_EQ(rows[matrix], weights[matrix].out_features);
    ++ends[matrix];
  };
  PackedLinear::prepare(kernels(), *parallel, weights, layout().format, hooks);
  for (std::size_t i = 0; i < matrices.size(); ++i) {
    EXPECT_EQ(shown[i], matrices[i].codes);
    EXPECT_EQ(ends[i], 1);
  }
}

// Layers that were prepared together lie in one allocation, which is there until the last of them goes.
TEST_P(LinearTest, OneOfManyOutlivesTheOthers) {
  const auto parallel = make_parallel(2);
  std::vector<Layer> layers;
  std::vector<TernaryView> weights;
  for (int i = 0; i < 9; ++i) {
    layers.push_back(random_layer(2, uniform(1, 200), uniform(1, 300)));
  }
  for (const Layer& layer : layers) {
    weights.push_back(layer.matrix.view());
  }
  for (std::size_t kept = 0; kept < layers.size() && !HasFatalFailure(); ++kept) {
    std::vector<PackedLinear> all = PackedLinear::prepare(kernels(), *parallel, weights, layout().format);
    const PackedLinear one = std::move(all[kept]);
    all.clear();
    ASSERT_TRUE(same_bits(run(layers[kept], one, *parallel), oracle(layers[kept])));
  }
}

TEST_P(LinearTest, NoMatrices) {
  const auto parallel = make_parallel(2);
  EXPECT_TRUE(PackedLinear::prepare(kernels(), *parallel, {}, layout().format).empty());
}

// A scale that training made NaN reaches y.
TEST_P(LinearTest, NaNScalePassesThrough) {
  const auto parallel = make_parallel(1);
  Layer layer = random_layer(2, 40, 50);
  layer.matrix.scale = {std::nanf("")};
  for (const float y : run(layer, *parallel)) {
    EXPECT_TRUE(std::isnan(y));
  }
}

TEST_P(LinearTest, Errors) {
  const auto parallel = make_parallel(1);
  const auto message = [&](const TernaryView& view) -> std::string {
    try {
      const PackedLinear layer(kernels(), *parallel, view);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const std::vector<std::uint8_t> codes(4);
  const std::vector<float> scales(3, 1.0F);
  const std::span one = std::span(scales).first(1);
  EXPECT_NE(message({0, 4, codes, one}).find("[0, 4]"), std::string::npos);
  EXPECT_NE(message({4, 0, codes, one}).find("[4, 0]"), std::string::npos);
  EXPECT_NE(message({4, 5, codes, one}).find("4 bytes of codes, wanted 4 rows of 2"), std::string::npos);
  EXPECT_NE(message({4, 4, codes, scales}).find("3 scales, wanted 1 or 4"), std::string::npos);
  EXPECT_NE(message({1, 16777216, codes, one}).find("16777215"), std::string::npos);
  EXPECT_EQ(message({4, 4, codes, one}), "");

  const PackedLinear layer(kernels(), *parallel, {4, 4, codes, one});
  QuantizedBatch batch(1, 4);
  float y[4];
  EXPECT_THROW(layer.product(*parallel, {batch.q.data(), batch.scale.data(), batch.q_sum.data(), -1}, nullptr,
                             DataType::float32, y),
               Error);
  EXPECT_THROW(layer.product(*parallel, {nullptr, nullptr, nullptr, 1}, nullptr, DataType::float32, y),
               Error);

  const float x[8] = {};
  NormQuant args{.x = x, .tokens = 2, .in_features = 4, .x_stride = 4, .norm = Norm::rms};
  EXPECT_THROW(norm_quant(kernels(), *parallel, args), Error);  // no outputs
  QuantizedBatch two(2, 4);
  args.q = two.q.data();
  args.scale = two.scale.data();
  args.q_sum = two.q_sum.data();
  EXPECT_NO_THROW(norm_quant(kernels(), *parallel, args));
  const auto refused = [&](auto change) {
    NormQuant bad = args;
    change(bad);
    EXPECT_THROW(norm_quant(kernels(), *parallel, bad), Error);
  };
  refused([](NormQuant& bad) { bad.tokens = -1; });
  refused([](NormQuant& bad) { bad.in_features = 0; });
  refused([](NormQuant& bad) { bad.x_stride = 3; });
  for (const float eps : {0.0F, -0.0F, -1e-6F, std::nanf(""), std::numeric_limits<float>::infinity()}) {
    refused([&](NormQuant& bad) { bad.eps = eps; });
  }
}

#if defined(__linux__)
/// Bytes of this process's memory that the kernel may put on huge pages because someone asked for it.
std::int64_t advised_bytes() {
  std::ifstream file("/proc/self/smaps");
  std::int64_t all = 0;
  std::int64_t size = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("Size:")) {
      size = std::stoll(line.substr(5)) * 1024;
    } else if (line.starts_with("VmFlags:") && line.find(" hg") != std::string::npos) {
      all += size;
    }
  }
  return all;
}

// Each is too small for a huge page of its own. Together they are larger than what malloc may have had
// before.
TEST(WeightMemoryTest, SmallLayersOfAModelLieOnHugePages) {
  if (!std::filesystem::exists("/sys/kernel/mm/transparent_hugepage")) {
    std::printf("this kernel has no transparent huge pages\n");
    return;
  }
  constexpr std::int64_t kLayerBytes = 1 << 20;
  constexpr std::int64_t kLayers = 48;
  const std::vector<std::uint8_t> codes(kLayerBytes);
  const std::vector<float> scale{1.0F};
  const std::vector<TernaryView> weights(kLayers, {1024, 4096, codes, scale});
  const auto parallel = make_parallel(2);
  const std::int64_t before = advised_bytes();
  const auto layers =
      PackedLinear::prepare(cpu_kernels_for(Backend::automatic), *parallel, weights, PanelFormat::two_bit);
  EXPECT_GE(advised_bytes() - before, kLayers * kLayerBytes);
}
#endif

INSTANTIATE_TEST_SUITE_P(Backends, LinearTest, testing::ValuesIn(available_layouts()), layout_name);

}  // namespace
}  // namespace trit::test
