// SPDX-License-Identifier: MIT
//
// Block kernel against product tile, on a small layer of zeros: neither's speed depends on the values.
#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <mutex>
#include <vector>

#include "cpu/generic/aligned_buffer.h"
#include "cpu/generic/blocks.h"

namespace trit::generic {
namespace {

// 2048 rows of 1080 inputs, 64 tokens: 0.2 to 0.4 ms a round of either.
constexpr std::int64_t kOutFeatures = 2048;
constexpr std::int64_t kInFeatures = 1080;
constexpr std::int64_t kTokens = 64;
constexpr int kRounds = 7;
// What the block kernel must gain: less is not worth its memory.
constexpr double kGain = 0.98;

template <typename Function>
double seconds(const Function& function) {
  const auto start = std::chrono::steady_clock::now();
  function();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

bool contest(const PanelLayout& layout) {
  const BlockKernel& kernel = *layout.block;
  const std::int64_t panels = kOutFeatures / layout.panel_rows / kernel.panels * kernel.panels;
  const std::int64_t tokens = kTokens / kernel.tokens * kernel.tokens;
  const std::int64_t panel_bytes = kInFeatures / 4 * layout.panel_bytes_per_4;
  AlignedBuffer weights(static_cast<std::size_t>(panels * panel_bytes));
  std::fill_n(weights.data(), weights.size(), std::uint8_t{0});
  const std::vector<std::int8_t> q(static_cast<std::size_t>(tokens * kInFeatures));
  const std::vector<std::int32_t> q_sum(static_cast<std::size_t>(tokens));
  AlignedBuffer acc(static_cast<std::size_t>(panels * layout.panel_rows * tokens * 4));
  AlignedBuffer scratch(static_cast<std::size_t>(kernel.scratch_bytes(panels)));
  auto* const sums = reinterpret_cast<std::int32_t*>(acc.data());

  const auto by_block = [&] {
    kernel.product_block({.panels = weights.data(),
                          .panel_bytes = panel_bytes,
                          .panel_count = panels,
                          .q = q.data(),
                          .q_stride = kInFeatures,
                          .k = kInFeatures,
                          .tokens = tokens,
                          .q_sum = q_sum.data(),
                          .acc = sums,
                          .scratch = scratch.data()});
  };
  const auto by_tiles = [&] {
    for (std::int64_t panel = 0; panel < panels; ++panel) {
      for (std::int64_t token = 0; token < tokens; token += layout.max_tokens) {
        layout.product_tile({.panel = weights.data() + panel * panel_bytes,
                             .q = q.data() + token * kInFeatures,
                             .q_stride = kInFeatures,
                             .k = kInFeatures,
                             .tokens = std::min(layout.max_tokens, tokens - token),
                             .q_sum = q_sum.data() + token,
                             .acc = sums});
      }
    }
  };
  const DefaultFloatingPoint environment;
  std::array<double, kRounds> block_time{};
  std::array<double, kRounds> tile_time{};
  by_block();
  by_tiles();
  for (std::size_t round = 0; round < kRounds; ++round) {
    block_time.at(round) = seconds(by_block);
    tile_time.at(round) = seconds(by_tiles);
  }
  std::sort(block_time.begin(), block_time.end());
  std::sort(tile_time.begin(), tile_time.end());
  return block_time[kRounds / 2] < kGain * tile_time[kRounds / 2];
}

}  // namespace

bool block_kernel_wins(const PanelLayout& layout) {
  static std::mutex mutex;
  static std::map<const BlockKernel*, bool> results;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto known = results.find(layout.block);
  return known != results.end() ? known->second
                                : results.emplace(layout.block, contest(layout)).first->second;
}

}  // namespace trit::generic
