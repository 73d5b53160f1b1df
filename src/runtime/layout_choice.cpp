// SPDX-License-Identifier: MIT
#include "runtime/layout_choice.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <mutex>
#include <utility>

#include "base/environment.h"
#include "base/integer.h"
#include "base/user_cache.h"
#include "cpu/cpu_features.h"
#include "cpu/generic/layout_measure.h"
#include "trit/cpu_caches.h"
#include "trit/error.h"

namespace trit {
namespace {

/// Where the system does not say how large an L2 is.
constexpr std::int64_t kUsualL2 = 1 << 20;

/// Weights of this many bytes stay in the L2 caches of `threads` threads: half of the caches, since
/// activations and other processes use the rest.
std::int64_t bytes_in_l2(int threads) {
  const CacheLevel& l2 = cpu_caches().l2;
  return (l2.bytes > 0 ? std::min(threads * l2.bytes, l2.total_bytes) : kUsualL2) / 2;
}

LayoutChoice measured_or_remembered(const CpuKernels& kernels, Parallel& parallel,
                                    std::optional<std::int64_t> bytes) {
  // The first number is the version of the kernels: measurements of older ones are of no use.
  std::string key = "3 | " + cpu_model() + " | " + std::string(name_of(backend_of(kernels))) + " | " +
                    std::to_string(parallel.threads()) + " threads | " +
                    (bytes ? std::to_string(*bytes) + " bytes" : "memory");
  for (const PanelFormat format : available_formats(kernels)) {
    key += " | " + std::string(name_of(format));
  }
  static std::mutex mutex;
  static std::map<std::string, LayoutChoice> choices;
  const std::lock_guard lock(mutex);
  if (const auto found = choices.find(key); found != choices.end()) {
    return found->second;
  }
  const runtime::RememberedLayout remembered(user_cache_folder(), key);
  LayoutChoice choice{PanelFormat::automatic, "measured before, " + remembered.path().string()};
  if (const auto format = remembered.read()) {
    choice.format = *format;
  } else {
    choice = generic::measure_layouts(kernels, parallel, bytes);
    // Another program may have disturbed the measurement, so only a choice that a second one confirms is
    // kept. Otherwise, or if the file cannot be written, the next process measures again.
    if (generic::measure_layouts(kernels, parallel, bytes).format == choice.format) {
      static_cast<void>(remembered.write(choice.format));
    }
  }
  return choices.emplace(std::move(key), std::move(choice)).first->second;
}

}  // namespace

LayoutChoice choose_layout(const CpuKernels& kernels, Parallel& parallel, std::int64_t weight_bytes) {
  const std::vector<PanelFormat> formats = available_formats(kernels);
  const PanelFormat asked = parse_environment("TRIT_LAYOUT", PanelFormat::automatic, panel_format_from_name);
  if (formats.size() == 1) {
    return {formats.front(), "the only one of this backend here"};
  }
  if (asked != PanelFormat::automatic) {
    return {std::ranges::count(formats, asked) == 0 ? formats.front() : asked, "TRIT_LAYOUT"};
  }
  if (weight_bytes <= bytes_in_l2(parallel.threads())) {
    return {formats.front(), "weights of " + std::to_string(ceil_div<std::int64_t>(weight_bytes, 1'000'000)) +
                                 " MB stay in L2"};
  }
  return measured_or_remembered(kernels, parallel, runtime::measured_size(weight_bytes));
}

namespace runtime {

std::optional<std::int64_t> measured_size(std::int64_t weight_bytes) {
  constexpr double kMin = 1 << 20;
  constexpr int kHalfOctaves = 14;  // to 128 MiB
  const double at = 2 * std::log2(static_cast<double>(weight_bytes) / kMin);
  const auto nearest = static_cast<int>(std::lround(std::max(at, 0.0)));
  if (nearest > kHalfOctaves) {
    return std::nullopt;
  }
  return std::llround(kMin * std::exp2(nearest / 2.0));
}

RememberedLayout::RememberedLayout(const std::filesystem::path& folder, std::string key)
    : path_(cached_file(folder, "layout", key)), key_(std::move(key)) {}

std::optional<PanelFormat> RememberedLayout::read() const {
  std::ifstream file(path_);
  std::string key;
  std::string name;
  if (path_.empty() || !std::getline(file, key) || key != key_ || !std::getline(file, name) || file.eof()) {
    return std::nullopt;
  }
  try {
    const PanelFormat format = panel_format_from_name(name);
    return format == PanelFormat::automatic ? std::nullopt : std::optional(format);
  } catch (const Error&) {
    return std::nullopt;
  }
}

bool RememberedLayout::write(PanelFormat format) const {
  return write_cached_file(path_, key_ + "\n" + std::string(name_of(format)) + "\n");
}

}  // namespace runtime
}  // namespace trit
