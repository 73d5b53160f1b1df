// SPDX-License-Identifier: MIT
//
// The hybrid block against product tiles, AVX-512 VNNI, one thread: the inner tile from L1, what is prepared
// around it, and whole products of six layer shapes, each beside the vpdpbusd peak of the same rounds. The
// first outputs of either way are compared. What a run on a new CPU should show: whether the tile is ahead of
// the peak, and how much of that is left in a product.
//
//   bench_hybrid --json results/      adds the object "hybrid" to results/<machine>.json
#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <random>

#include "bench/lib/aligned_vector.h"
#include "bench/lib/limits.h"
#include "bench/lib/program.h"
#include "bench/lib/report.h"
#include "bench/lib/timing.h"
#include "cpu/avx512_vnni/hybrid.h"
#include "trit/error.h"
#include "trit/linear.h"

using namespace trit;

namespace {

using nlohmann::ordered_json;
namespace hybrid = avx512_vnni::hybrid;

constexpr std::int64_t kTileOperations = 2 * 128 * hybrid::kInputs * hybrid::kTokens;
constexpr std::int64_t kPanelBytes = 16 * hybrid::kInputs;

double median_ratio(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> ratios;
  for (std::size_t round = 0; round < a.size(); ++round) {
    ratios.push_back(a[round] / b[round]);
  }
  return apps::median(ratios);
}

/// The inner tile and its two preparations, on data that stay in L1. Random data: the clock depends on them.
ordered_json parts(const apps::Int8Peak& peak, const apps::TimingOptions& timing) {
  std::mt19937 random(1);
  apps::AlignedVector<std::uint8_t> panels(2 * kPanelBytes);
  for (std::uint8_t& codes : panels) {  // four of 0, 1, 2
    const unsigned low = static_cast<unsigned>(random()) & 0x55U;
    codes = static_cast<std::uint8_t>(low | (~low & random() & 0x55U) << 1U);
  }
  apps::AlignedVector<std::int8_t> q(hybrid::kTokens * hybrid::kInputs);
  for (std::int8_t& value : q) {
    value = static_cast<std::int8_t>(random());
  }
  apps::AlignedVector<std::uint8_t> weights(hybrid::kUnits * hybrid::kUnitBytes);
  apps::AlignedVector<hybrid::Tokens> tokens(1);
  apps::AlignedVector<hybrid::Sums> sums(2);
  hybrid::prepare_tokens(q.data(), hybrid::kInputs, hybrid::kInputs, tokens[0]);
  hybrid::prepare_weights(panels.data(), kPanelBytes, hybrid::kInputs / 4, hybrid::kUnits, weights.data());
  const std::vector<std::function<void()>> subjects = {
      peak.burst, [&] { hybrid::tile(weights.data(), tokens[0], hybrid::kUnits, sums[0]); },
      [&] { hybrid::prepare_tokens(q.data(), hybrid::kInputs, hybrid::kInputs, tokens[0]); },
      [&] {
        hybrid::prepare_weights(panels.data(), kPanelBytes, hybrid::kInputs / 4, hybrid::kUnits,
                                weights.data());
      }};
  const auto seconds = apps::time_interleaved(subjects, timing);
  const double of_peak = median_ratio(seconds[0], seconds[1]) * kTileOperations / peak.operations;
  const double tables = median_ratio(seconds[2], seconds[1]);
  const double indices = median_ratio(seconds[3], seconds[1]);
  fmt::print("tile from L1: {:.0f} ns, {:.3f} of the {} peak ({:.0f} GOP/s)\n",
             1e9 * apps::median(seconds[1]), of_peak, peak.instruction,
             peak.operations / apps::median(seconds[0]) / 1e9);
  fmt::print(
      "tables of 4 tokens: {:.2f} tiles, once for all rows; weights of 128 rows: {:.2f} tiles, once for all "
      "tokens\n",
      tables, indices);
  return {{"tile_of_peak", of_peak}, {"tables_in_tiles", tables}, {"weights_in_tiles", indices}};
}

/// One layer, product tiles and hybrid in turn.
ordered_json product(const apps::Int8Peak& peak, std::int64_t n, std::int64_t k, std::int64_t m,
                     const apps::TimingOptions& timing) {
  std::mt19937 random(1);
  TernaryMatrix matrix{
      n, k, std::vector<std::uint8_t>(static_cast<std::size_t>(n * packed_row_bytes(k))), {1.0F}};
  for (std::uint8_t& four : matrix.codes) {
    const unsigned low = static_cast<unsigned>(random()) & 0x55U;
    four = static_cast<std::uint8_t>(low | (low & random()) << 1U);
  }
  std::vector<std::int8_t> q(static_cast<std::size_t>(m * k));
  std::vector<std::int32_t> q_sum(static_cast<std::size_t>(m));
  const std::vector<float> scale(static_cast<std::size_t>(m), 1.0F);
  for (std::size_t i = 0; i < q.size(); ++i) {
    q[i] = static_cast<std::int8_t>(random());
    q_sum[i / static_cast<std::size_t>(k)] += q[i];
  }
  const auto parallel = make_parallel(1);
  const PackedLinear layer(cpu_kernels_for(Backend::avx512_vnni), *parallel, matrix.view(),
                           PanelFormat::two_bit);
  std::vector<float> by_tiles(static_cast<std::size_t>(m * n));
  std::vector<float> by_blocks(by_tiles.size());
  const auto run = [&](const char* mode, std::vector<float>& y) {
    setenv("TRIT_HYBRID", mode, 1);  // this program has one thread
    layer.product(*parallel, {q.data(), scale.data(), q_sum.data(), m}, nullptr, DataType::float32, y.data());
  };
  const std::vector<std::function<void()>> subjects = {peak.burst, [&] { run("off", by_tiles); },
                                                       [&] { run("on", by_blocks); }};
  const auto seconds = apps::time_interleaved(subjects, timing);
  unsetenv("TRIT_HYBRID");
  if (by_tiles != by_blocks) {
    throw Error(fmt::format("{}x{}, {} tokens: tiles and hybrid differ", n, k, m));
  }
  const double operations = 2.0 * static_cast<double>(n) * static_cast<double>(k) * static_cast<double>(m);
  const double tiles_of_peak = median_ratio(seconds[0], seconds[1]) * operations / peak.operations;
  const double hybrid_of_peak = median_ratio(seconds[0], seconds[2]) * operations / peak.operations;
  const double gain = median_ratio(seconds[1], seconds[2]);
  fmt::print("{:>11} {:>4} tokens: tiles {:.3f} of the peak, hybrid {:.3f}: {:.3f}x\n",
             fmt::format("{}x{}", n, k), m, tiles_of_peak, hybrid_of_peak, gain);
  return {{"out_features", n},
          {"in_features", k},
          {"tokens", m},
          {"tiles_of_peak", tiles_of_peak},
          {"hybrid_of_peak", hybrid_of_peak},
          {"gain", gain}};
}

}  // namespace

int bench::run(int argc, char** argv) {
  CommandLine app{"Times the hybrid block against product tiles.", "bench_hybrid --tokens 128"};
  std::string json;
  apps::TimingOptions timing;
  std::vector<std::int64_t> tokens{128, 512};
  app.add_json(json);
  app.add_tokens(tokens);
  app.add_rounds(timing);
  CLI11_PARSE(app, argc, argv);
  const auto peak = apps::int8_peak(cpu_kernels_for(Backend::avx512_vnni).backend);
  if (!peak) {
    throw Error("no int8 peak is known of avx512_vnni");
  }
  ordered_json result = parts(*peak, timing);
  for (const std::int64_t m : tokens) {
    for (const auto& [n, k] : {std::pair(2560, 2560), std::pair(6912, 2560), std::pair(2560, 6912),
                               std::pair(4096, 4096), std::pair(14336, 4096), std::pair(4096, 14336)}) {
      result["products"].push_back(product(*peak, n, k, m, timing));
    }
  }
  if (!json.empty()) {
    bench::store(json, "hybrid", result);
  }
  return 0;
}
