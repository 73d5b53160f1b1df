// SPDX-License-Identifier: MIT
//
// Which products take the hybrid kernel, and how they are cut into blocks. Compiled without AVX-512.
#include "cpu/avx512_vnni/hybrid/hybrid.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>
#include <vector>

#include "base/buffer.h"
#include "base/environment.h"
#include "base/integer.h"
#include "base/names.h"
#include "base/tasks.h"
#include "cpu/avx512_vnni/hybrid/block.h"

namespace trit::avx512_vnni::hybrid {
namespace {

enum class Mode : std::uint8_t { automatic, on, off };
constexpr std::array<Named<Mode>, 3> kModes{
    {{Mode::automatic, "auto"}, {Mode::on, "on"}, {Mode::off, "off"}}};

// Where the choice is automatic. What a block prepares is shared by its tokens and its rows: at these numbers
// it is a tenth of the time.
constexpr std::int64_t kMinTokens = 128, kMinOutFeatures = 1024, kMinInFeatures = 512;

// Panel pairs x token groups of a block: 2 KiB of sums each, 1 MiB in all. With weights and tables that is an
// L2 and a half, but the sums pass by in order, once per block of k, and are prefetched.
constexpr std::int64_t kMaxUnits = 512;
// Panel pairs of a block: 6.4 KiB of prepared weights each, a quarter of an L2.
constexpr std::int64_t kMaxPairs = 40;
// What a pair (its weights) and a group (its tables) cost once per block, in units. Measured: 0.4 to 0.65 and
// 0.6 to 0.75.
constexpr double kPairCost = 0.5, kGroupCost = 0.7;

bool is_taken(const generic::Product& args) {
  const Mode mode = parse_environment("TRIT_HYBRID", Mode::automatic, [](std::string_view name) {
    return value_in<Mode>(kModes, "mode", name);
  });
  if (mode == Mode::off || padded_in_features(args.in_features) > args.layout.max_k) {
    return false;
  }
  return mode == Mode::on || (args.x.tokens >= kMinTokens && args.out_features >= kMinOutFeatures &&
                              args.in_features >= kMinInFeatures && is_faster(args.kernels, args.layout));
}

/// y of some pairs of panels x some groups of tokens.
void run_block(const generic::Product& args, Part pairs, Part groups) {
  const std::int64_t padded = padded_in_features(args.in_features);
  const std::int64_t panel_bytes = padded / 4 * args.layout.panel_bytes_per_4;
  const std::int64_t first_panel = kPanels * pairs.begin;
  const std::int64_t first_token = kTokens * groups.begin;
  const auto sums_bytes = static_cast<std::size_t>(pairs.size() * groups.size()) * sizeof(Sums);
  std::uint8_t* const memory = thread_buffer<Block>(sums_bytes + scratch_bytes(pairs.size()));
  Sums* const sums = reinterpret_cast<Sums*>(memory);
  multiply({.panels = args.panels + first_panel * panel_bytes,
            .panel_bytes = panel_bytes,
            .pairs = pairs.size(),
            .q = args.x.q + first_token * padded,
            .k = padded,
            .groups = groups.size(),
            .q_sum = args.x.q_sum + first_token,
            .sums = sums,
            .scratch = memory + sums_bytes});
  // Along the rows of y, which are far apart.
  for (std::int64_t token = 0; token < kTokens * groups.size(); ++token) {
    for (std::int64_t panel = 0; panel < kPanels * pairs.size(); ++panel) {
      const Sums& tile_sums = sums[token / kTokens * pairs.size() + panel / kPanels];
      generic::epilogue(args, first_panel + panel, first_token + token,
                        tile_sums.token[token % kTokens][4 * (panel % kPanels)]);
    }
  }
}

/// On a small layer of zeros, whose values no kernel's speed depends on: 0.2 to 0.4 ms a round.
bool measure(const CpuKernels& kernels, const PanelLayout& layout) {
  constexpr std::int64_t kOutFeatures = 2048;
  constexpr std::int64_t kInFeatures = 1080;
  constexpr std::int64_t kManyTokens = 64;
  constexpr double kGain = 0.98;  // less is not worth the memory
  const std::int64_t panels = kOutFeatures / layout.panel_rows;
  AlignedBuffer weights(static_cast<std::size_t>(panels * (kInFeatures / 4) * layout.panel_bytes_per_4));
  std::fill_n(weights.data(), weights.size(), std::uint8_t{0});
  const std::vector<std::int8_t> q(kManyTokens * kInFeatures);
  const std::vector<float> scale(kManyTokens);
  const std::vector<std::int32_t> q_sum(kManyTokens);
  std::vector<float> y(kManyTokens * kOutFeatures);
  const generic::Product args{.kernels = kernels,
                              .layout = layout,
                              .out_features = kOutFeatures,
                              .in_features = kInFeatures,
                              .panels = weights.data(),
                              .weight_scale = scale.data(),
                              .weight_scale_per_row = false,
                              .x = {q.data(), scale.data(), q_sum.data(), kManyTokens},
                              .bias = nullptr,
                              .y_type = DataType::float32,
                              .y = y.data()};
  const auto parallel = make_serial();
  const auto seconds = [](const auto& function) {
    const auto start = std::chrono::steady_clock::now();
    function();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  // The minimum over some rounds, since other programs can only add to a time.
  double by_block = std::numeric_limits<double>::infinity();
  double by_tiles = by_block;
  for (int round = 0; round < 8; ++round) {
    by_block = std::min(by_block,
                        seconds([&] { run_block(args, {0, panels / kPanels}, {0, kManyTokens / kTokens}); }));
    by_tiles = std::min(
        by_tiles, seconds([&] { generic::product_tiles(*parallel, args, {0, panels}, {0, kManyTokens}); }));
  }
  return by_block < kGain * by_tiles;
}

}  // namespace

bool is_faster(const CpuKernels& kernels, const PanelLayout& layout) {
  static const bool faster = measure(kernels, layout);
  return faster;
}

Grid grid(std::int64_t pairs, std::int64_t groups, std::int64_t threads) {
  Grid best{pairs, groups};
  double best_time = std::numeric_limits<double>::infinity();
  for (std::int64_t rows = ceil_div(pairs, kMaxPairs); rows <= pairs; ++rows) {
    const std::int64_t high = ceil_div(pairs, rows);
    // The fewest columns that bound a block, and up to enough for all threads.
    const std::int64_t first = ceil_div(groups, std::max<std::int64_t>(1, kMaxUnits / high));
    const std::int64_t last = std::min(groups, std::max(first + 2, ceil_div(threads, rows)));
    for (std::int64_t columns = std::min(first, groups); columns <= last; ++columns) {
      const std::int64_t wide = ceil_div(groups, columns);
      const double block = static_cast<double>(high * wide) + kPairCost * static_cast<double>(high) +
                           kGroupCost * static_cast<double>(wide);
      const double time = block * static_cast<double>(ceil_div(rows * columns, threads));
      if (time < best_time) {
        best_time = time;
        best = {rows, columns};
      }
    }
  }
  return best;
}

DonePart product(Parallel& parallel, const generic::Product& args) {
  const std::int64_t pairs = ceil_div(args.out_features, args.layout.panel_rows) / kPanels;
  const std::int64_t groups = args.x.tokens / kTokens;
  if (!is_taken(args) || pairs == 0 || groups == 0) {
    return {0, 0};
  }
  const Grid cut = grid(pairs, groups, parallel.threads());
  run_tasks(parallel, cut.rows * cut.columns, [&](std::int64_t task) {
    run_block(args, part_of(pairs, cut.rows, task / cut.columns),
              part_of(groups, cut.columns, task % cut.columns));
  });
  return {kPanels * pairs, kTokens * groups};
}

}  // namespace trit::avx512_vnni::hybrid
