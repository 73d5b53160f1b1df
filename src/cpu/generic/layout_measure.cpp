// SPDX-License-Identifier: MIT
//
// How fast each layout of a backend is on this machine: one token with weights of a model's size, wherever
// they then lie, and many tokens with weights from cache.
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <optional>
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
/// At 2 bits, flushed from the caches before they are read. Long enough to time (2 ms or more on any machine
/// with one thread a core), short enough to have.
constexpr std::int64_t kMemoryBytes = std::int64_t{64} << 20;
/// What a timing reads at least: smaller weights again and again.
constexpr std::int64_t kTimedBytes = std::int64_t{16} << 20;
/// Passes before the clock starts, after which a last cache holds what it can, and at least as many timed
/// ones.
constexpr std::int64_t kWarmPasses = 4;
constexpr std::int64_t kTimedPasses = 3;
/// A format that decodes so much slower than the fastest is not chosen, however fast it is with many tokens.
constexpr double kAlike = 1.02;
constexpr std::int64_t kManyTokens = 48;
constexpr int kRounds = 9;
constexpr int kRoundsOfPages = 3;

class Contender {
 public:
  /// `bytes` of weights at 2 bits each; nothing: any number, from memory. They are written to `memory` for
  /// each timing; all layouts share it, because how fast a buffer is read depends on the pages that it got
  /// (up to 1.5x on a virtual machine), and a layout is not to be judged by that.
  Contender(const PanelLayout& layout, Parallel& parallel, std::optional<std::int64_t> bytes,
            AlignedBuffer& memory)
      : layout_(layout),
        parallel_(parallel),
        from_memory_(!bytes),
        panel_bytes_(kInFeatures / 4 * layout.panel_bytes_per_4),
        panels_(std::max<std::int64_t>(1, bytes.value_or(kMemoryBytes) * 4 / weights())),
        passes_(from_memory_ ? 1 : std::max(kTimedPasses, kTimedBytes / (panels_ * panel_bytes_))),
        memory_(memory),
        panel_(static_cast<std::size_t>(panel_bytes_)),
        q_(static_cast<std::size_t>(kManyTokens * kInFeatures)),
        q_sum_(kManyTokens),
        tokens_(std::min(kManyTokens, layout.max_tokens)) {
    std::mt19937 random(1);  // NOLINT(cert-msc51-cpp,bugprone-random-generator-seed): any valid codes will do
    std::vector<std::uint8_t> stored(static_cast<std::size_t>(layout.panel_rows * (kInFeatures / 4)));
    for (std::uint8_t& four : stored) {
      const auto low = static_cast<unsigned>(random()) & 0x55U;        // 0 or 1 in each field
      four = static_cast<std::uint8_t>(low | (low & random()) << 1U);  // and some of the 1 become 3
    }
    for (std::size_t i = 0; i < q_.size(); ++i) {
      q_.data()[i] = static_cast<std::uint8_t>(random());
    }
    layout.prepare_panel(stored.data(), kInFeatures / 4, layout.panel_rows, kInFeatures, panel_.data());
  }

  /// Seconds per weight, one token.
  double one_token() {
    const auto pass = [&] {
      for_panels([&](std::int64_t i) { run(memory_.data() + i * panel_bytes_, 0, 1); });
    };
    for_panels([&](std::int64_t i) {
      std::memcpy(memory_.data() + i * panel_bytes_, panel_.data(), static_cast<std::size_t>(panel_bytes_));
    });
    if (from_memory_) {
      for_panels([&](std::int64_t i) { leave_caches(memory_.data() + i * panel_bytes_); });
    } else {
      for (std::int64_t i = 0; i < kWarmPasses; ++i) {
        pass();
      }
    }
    const double seconds = time([&] {
      for (std::int64_t i = 0; i < passes_; ++i) {
        pass();
      }
    });
    return seconds / static_cast<double>(passes_ * panels_ * weights());
  }

  /// Seconds per weight and token, many tokens, on every thread at once.
  double many_tokens() {
    const double seconds = time([&] {
      run_tasks(parallel_, parallel_.threads(), [&](std::int64_t) {
        for (std::int64_t first = 0; first + tokens_ <= kManyTokens; first += tokens_) {
          run(panel_.data(), first, tokens_);
        }
      });
    });
    const std::int64_t tokens = kManyTokens / tokens_ * tokens_;
    return seconds / static_cast<double>(tokens * weights());
  }

  const PanelLayout& layout() const { return layout_; }
  std::size_t bytes() const { return static_cast<std::size_t>(panels_ * panel_bytes_); }
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
  bool from_memory_;
  std::int64_t panel_bytes_;
  std::int64_t panels_;
  std::int64_t passes_;
  AlignedBuffer& memory_;
  AlignedBuffer panel_;
  AlignedBuffer q_;
  std::vector<std::int32_t> q_sum_;
  std::int64_t tokens_;
};

/// The median of `values` divided by `base`, round by round. Other programs change the speed of memory
/// several times a second (a factor of two on shared machines), but both sides of a round alike; the ratio of
/// the two minima would compare a quiet moment of one with a busy one of the other.
double median_ratio(const std::vector<double>& values, const std::vector<double>& base) {
  std::vector<double> ratios(values.size());
  std::transform(values.begin(), values.end(), base.begin(), ratios.begin(), std::divides<>());
  const auto middle = ratios.begin() + static_cast<std::ptrdiff_t>(ratios.size() / 2);
  std::nth_element(ratios.begin(), middle, ratios.end());
  return *middle;
}

std::string times_text(double ratio) {
  const auto hundredths = std::llround(ratio * 100);
  const std::string fraction = std::to_string(hundredths % 100);
  return std::to_string(hundredths / 100) + "." + (fraction.size() < 2 ? "0" : "") + fraction;
}

}  // namespace

LayoutChoice measure_layouts(const CpuKernels& kernels, Parallel& parallel,
                             std::optional<std::int64_t> bytes) {
  AlignedBuffer memory;
  std::vector<Contender> contenders;
  contenders.reserve(kernels.layouts.size());
  for (const PanelLayout& layout : kernels.layouts) {
    if (layout.available()) {
      contenders.emplace_back(layout, parallel, bytes, memory);
    }
  }
  std::size_t largest = 0;
  for (const Contender& contender : contenders) {
    largest = std::max(largest, contender.bytes());
  }
  for (int round = 0; round < kRounds; ++round) {
    if (round % kRoundsOfPages == 0) {
      memory = AlignedBuffer(largest);  // the old one goes after the new one has come: other pages
    }
    for (Contender& contender : contenders) {
      contender.one.push_back(contender.one_token());
      contender.many.push_back(contender.many_tokens());
    }
  }
  std::string why = "measured " +
                    (bytes ? "with " + std::to_string(*bytes / 1'000'000) + " MB" : "from memory") +
                    ", relative to " + std::string(name_of(kernels.layouts.front().format));
  const Contender& base = contenders.front();
  std::vector<double> one, many;  // times relative to the first layout's
  for (const Contender& contender : contenders) {
    one.push_back(median_ratio(contender.one, base.one));
    many.push_back(median_ratio(contender.many, base.many));
    if (one.size() > 1) {
      why += "; " + std::string(name_of(contender.layout().format)) + ": one token " +
             times_text(1 / one.back()) + "x, many tokens " + times_text(1 / many.back()) + "x";
    }
  }
  const double fastest = *std::min_element(one.begin(), one.end());
  std::size_t best = contenders.size();
  for (std::size_t i = 0; i < contenders.size(); ++i) {
    if (one[i] <= kAlike * fastest && (best == contenders.size() || many[i] < many[best])) {
      best = i;
    }
  }
  return {contenders[best].layout().format, why};
}

}  // namespace trit::generic
