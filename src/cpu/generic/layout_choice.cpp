// SPDX-License-Identifier: MIT
#include "cpu/generic/layout_choice.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <utility>

#include "cpu/cpu_features.h"
#include "io/user_cache.h"
#include "trit/cpu_caches.h"
#include "trit/error.h"

namespace trit {
namespace {

/// Where the system does not say how large an L2 is.
constexpr std::int64_t kUsualL2 = 1 << 20;

/// Weights of so many bytes stay in the L2 caches of `threads` threads: half of them, since activations and
/// other processes use the rest.
std::int64_t bytes_in_l2(int threads) {
  const CacheLevel& l2 = cpu_caches().l2;
  return (l2.bytes > 0 ? std::min(threads * l2.bytes, l2.total_bytes) : kUsualL2) / 2;
}

/// Rounded up.
std::string megabytes(std::int64_t bytes) { return std::to_string((bytes + 999'999) / 1'000'000) + " MB"; }

std::int64_t available_layouts(const CpuKernels& kernels) {
  return std::count_if(kernels.layouts.begin(), kernels.layouts.end(),
                       [](const PanelLayout& layout) { return layout.available(); });
}

/// The format that TRIT_LAYOUT names; automatic if it is unset or empty.
PanelFormat asked_format() {
  const char* name = std::getenv("TRIT_LAYOUT");
  if (name == nullptr || *name == '\0') {
    return PanelFormat::automatic;
  }
  try {
    return panel_format_from_name(name);
  } catch (const Error& error) {
    throw Error(std::string("TRIT_LAYOUT: ") + error.what());
  }
}

LayoutChoice measured_or_remembered(const CpuKernels& kernels, Parallel& parallel,
                                    std::optional<std::int64_t> bytes) {
  // What was found out for other kernels than these is of no use: the first number counts their changes.
  std::string key = "3 | " + cpu_model() + " | " + std::string(name_of(kernels.backend)) + " | " +
                    std::to_string(parallel.threads()) + " threads | " +
                    (bytes ? std::to_string(*bytes) + " bytes" : "memory");
  for (const PanelLayout& layout : kernels.layouts) {
    key += layout.available() ? " | " + std::string(name_of(layout.format)) : "";
  }
  static std::mutex mutex;
  static std::map<std::string, LayoutChoice> choices;
  const std::lock_guard lock(mutex);
  if (const auto found = choices.find(key); found != choices.end()) {
    return found->second;
  }
  const generic::RememberedLayout remembered(io::user_cache_folder(), key);
  LayoutChoice choice{PanelFormat::automatic, "measured before, " + remembered.path().string()};
  if (const auto format = remembered.read()) {
    choice.format = *format;
  } else {
    choice = generic::measure_layouts(kernels, parallel, bytes);
    // Another program may have disturbed it. Kept is what a second measurement confirms; else, and where it
    // cannot be written, the next process measures again.
    if (generic::measure_layouts(kernels, parallel, bytes).format == choice.format) {
      static_cast<void>(remembered.write(choice.format));
    }
  }
  return choices.emplace(std::move(key), std::move(choice)).first->second;
}

}  // namespace

LayoutChoice choose_layout(const CpuKernels& kernels, Parallel& parallel, std::int64_t weight_bytes) {
  const PanelFormat usual = kernels.layouts.front().format;
  const PanelFormat asked = asked_format();
  if (available_layouts(kernels) == 1) {
    return {usual, "the only one of this backend here"};
  }
  if (asked != PanelFormat::automatic) {
    const auto found =
        std::find_if(kernels.layouts.begin(), kernels.layouts.end(),
                     [&](const PanelLayout& layout) { return layout.format == asked && layout.available(); });
    return {found == kernels.layouts.end() ? usual : asked, "TRIT_LAYOUT"};
  }
  if (weight_bytes <= bytes_in_l2(parallel.threads())) {
    return {usual, "weights of " + megabytes(weight_bytes) + " stay in L2"};
  }
  return measured_or_remembered(kernels, parallel, generic::measured_size(weight_bytes));
}

namespace generic {

std::optional<std::int64_t> measured_size(std::int64_t weight_bytes) {
  constexpr double kLeast = 1 << 20;
  constexpr int kHalfOctaves = 14;  // to 128 MiB
  const double at = 2 * std::log2(static_cast<double>(weight_bytes) / kLeast);
  const auto nearest = static_cast<int>(std::lround(std::max(at, 0.0)));
  if (nearest > kHalfOctaves) {
    return std::nullopt;
  }
  return std::llround(kLeast * std::exp2(nearest / 2.0));
}

RememberedLayout::RememberedLayout(const std::filesystem::path& folder, std::string key)
    : path_(io::cached_file(folder, "layout", key)), key_(std::move(key)) {}

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
  return io::write_cached_file(path_, key_ + "\n" + std::string(name_of(format)) + "\n");
}

}  // namespace generic
}  // namespace trit
