// SPDX-License-Identifier: MIT
//
// How fast each layout of a backend is on this machine: one token with weights from memory, many tokens with
// weights from cache.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <random>
#include <vector>

#include "cpu/generic/aligned_buffer.h"
#include "cpu/generic/layout_choice.h"
#include "cpu/generic/tasks.h"
#include "trit/format.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace trit::generic {
namespace {

constexpr std::int64_t kInFeatures = 4096;
/// Long enough to time (2 ms or more on any machine with one thread a core), short enough to have.
constexpr std::int64_t kMemoryBytes = std::int64_t{64} << 20;
constexpr std::int64_t kManyTokens = 48;
constexpr int kRounds = 7;

class Contender {
 public:
  Contender(const PanelLayout& layout, Parallel& parallel)
      : layout_(layout),
        parallel_(parallel),
        panel_bytes_(kInFeatures / 4 * layout.panel_bytes_per_4),
        panels_(kMemoryBytes / panel_bytes_),
        memory_(static_cast<std::size_t>(panels_ * panel_bytes_)),
        q_(static_cast<std::size_t>(kManyTokens * kInFeatures)),
        q_sum_(kManyTokens),
        tokens_(std::min(kManyTokens, layout.max_tokens)) {
    std::mt19937 random;  // the same each time: only valid codes matter, not which
    std::vector<std::uint8_t> stored(static_cast<std::size_t>(layout.panel_rows * (kInFeatures / 4)));
    for (std::uint8_t& four : stored) {
      const auto low = static_cast<unsigned>(random()) & 0x55U;        // 0 or 1 in each field
      four = static_cast<std::uint8_t>(low | (low & random()) << 1U);  // and some of the 1 become 3
    }
    for (std::size_t i = 0; i < q_.size(); ++i) {
      q_.data()[i] = static_cast<std::uint8_t>(random());
    }
    AlignedBuffer panel(static_cast<std::size_t>(panel_bytes_));
    layout.prepare_panel(stored.data(), kInFeatures / 4, layout.panel_rows, kInFeatures, panel.data());
    for_panels([&](std::int64_t i) {
      std::memcpy(memory_.data() + i * panel_bytes_, panel.data(), static_cast<std::size_t>(panel_bytes_));
    });
  }

  /// Seconds per weight, one token, from memory.
  double one_token() {
    for_panels([&](std::int64_t i) { leave_caches(memory_.data() + i * panel_bytes_); });
    const double seconds =
        time([&] { for_panels([&](std::int64_t i) { run(memory_.data() + i * panel_bytes_, 0, 1); }); });
    return seconds / static_cast<double>(panels_ * weights());
  }

  /// Seconds per weight and token, many tokens, on every thread at once.
  double many_tokens() {
    const double seconds = time([&] {
      run_tasks(parallel_, parallel_.threads(), [&](std::int64_t task) {
        for (std::int64_t first = 0; first + tokens_ <= kManyTokens; first += tokens_) {
          run(memory_.data() + task % panels_ * panel_bytes_, first, tokens_);
        }
      });
    });
    return seconds / static_cast<double>(kManyTokens / tokens_ * tokens_ * weights());
  }

  const PanelLayout& layout() const { return layout_; }
  std::vector<double> one, many;  // of the rounds

 private:
  std::int64_t weights() const { return layout_.panel_rows * kInFeatures; }

  template <typename Body>
  void for_panels(const Body& body) {
    const std::int64_t tasks = std::min<std::int64_t>(parallel_.threads(), panels_);
    run_tasks(parallel_, tasks, [&](std::int64_t task) {
      const Part part = part_of(panels_, tasks, task);
      for (std::int64_t i = part.begin; i < part.end; ++i) {
        body(i);
      }
    });
  }

  void leave_caches([[maybe_unused]] const std::uint8_t* panel) const {
#if defined(__x86_64__)
    for (std::int64_t at = 0; at < panel_bytes_; at += 64) {
      _mm_clflush(panel + at);
    }
#endif
  }

  void run(const std::uint8_t* panel, std::int64_t first, std::int64_t tokens) const {
    static thread_local AlignedBuffer acc;
    const auto bytes =
        static_cast<std::size_t>(layout_.max_tokens * layout_.panel_rows) * sizeof(std::int32_t);
    if (acc.size() < bytes) {
      acc = AlignedBuffer(bytes);
    }
    layout_.product_tile({.panel = panel,
                          .q = reinterpret_cast<const std::int8_t*>(q_.data()) + first * kInFeatures,
                          .q_stride = kInFeatures,
                          .k = kInFeatures,
                          .tokens = tokens,
                          .q_sum = q_sum_.data() + first,
                          .acc = reinterpret_cast<std::int32_t*>(acc.data())});
  }

  template <typename Body>
  static double time(const Body& body) {
    const auto begin = std::chrono::steady_clock::now();
    body();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

  const PanelLayout& layout_;
  Parallel& parallel_;
  std::int64_t panel_bytes_;
  std::int64_t panels_;
  AlignedBuffer memory_;
  AlignedBuffer q_;
  std::vector<std::int32_t> q_sum_;
  std::int64_t tokens_;
};

// The least: other programs can only add to a time, and one answer serves for long.
double least(const std::vector<double>& values) { return *std::min_element(values.begin(), values.end()); }

std::string times_text(double ratio) {
  const auto hundredths = static_cast<std::int64_t>(ratio * 100 + 0.5);
  const std::string fraction = std::to_string(hundredths % 100);
  return std::to_string(hundredths / 100) + "." + (fraction.size() < 2 ? "0" : "") + fraction;
}

}  // namespace

LayoutChoice measure_layouts(const CpuKernels& kernels, Parallel& parallel) {
  std::vector<Contender> contenders;
  contenders.reserve(kernels.layouts.size());
  for (const PanelLayout& layout : kernels.layouts) {
    if (layout.available()) {
      contenders.emplace_back(layout, parallel);
    }
  }
  for (int round = 0; round < kRounds; ++round) {
    for (Contender& contender : contenders) {
      contender.one.push_back(contender.one_token());
      contender.many.push_back(contender.many_tokens());
    }
  }
  std::size_t best = 0;
  double best_cost = 0;
  std::string why = "measured, relative to " + std::string(name_of(kernels.layouts.front().format));
  const double one = least(contenders.front().one);
  const double many = least(contenders.front().many);
  for (std::size_t i = 0; i < contenders.size(); ++i) {
    const double one_gain = one / least(contenders[i].one);
    const double many_gain = many / least(contenders[i].many);
    if (i > 0) {
      why += "; " + std::string(name_of(contenders[i].layout().format)) + ": one token from memory " +
             times_text(one_gain) + "x, many tokens " + times_text(many_gain) + "x";
    }
    const double cost = 1 / (one_gain * many_gain);
    if (i == 0 || cost < best_cost) {
      best = i;
      best_cost = cost;
    }
  }
  return {contenders[best].layout().format, why};
}

}  // namespace trit::generic
