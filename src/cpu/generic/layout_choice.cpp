// SPDX-License-Identifier: MIT
#include "cpu/generic/layout_choice.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <map>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "cpu/cpu_features.h"
#include "io/atomic_file.h"
#include "trit/crc32c.h"
#include "trit/error.h"

namespace trit {
namespace {

/// Where the system does not say how large the last cache is.
constexpr std::int64_t kUsualLastCache = 32 << 20;

std::int64_t last_cache_bytes() {
#if defined(_SC_LEVEL3_CACHE_SIZE)
  const std::int64_t bytes = std::max(sysconf(_SC_LEVEL3_CACHE_SIZE), sysconf(_SC_LEVEL2_CACHE_SIZE));
  return bytes > 0 ? bytes : kUsualLastCache;
#else
  return kUsualLastCache;
#endif
}

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

std::filesystem::path cache_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && *cache == '/') {
    return std::filesystem::path(cache) / "trit";
  }
  const char* home = std::getenv("HOME");
  return home != nullptr && *home == '/' ? std::filesystem::path(home) / ".cache" / "trit"
                                         : std::filesystem::path();
}

LayoutChoice measured_or_remembered(const CpuKernels& kernels, Parallel& parallel) {
  // What was found out for other kernels than these is of no use: the first number counts their changes.
  std::string key = "1 | " + cpu_model() + " | " + std::string(name_of(kernels.backend)) + " | " +
                    std::to_string(parallel.threads()) + " threads";
  for (const PanelLayout& layout : kernels.layouts) {
    key += layout.available() ? " | " + std::string(name_of(layout.format)) : "";
  }
  static std::mutex mutex;
  static std::map<std::string, LayoutChoice> choices;
  const std::lock_guard lock(mutex);
  if (const auto found = choices.find(key); found != choices.end()) {
    return found->second;
  }
  const generic::RememberedLayout remembered(cache_folder(), key);
  LayoutChoice choice{PanelFormat::automatic, "measured before, " + remembered.path().string()};
  if (const auto format = remembered.read()) {
    choice.format = *format;
  } else {
    choice = generic::measure_layouts(kernels, parallel);
    remembered.write(choice.format);
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
  // Half of it: activations and other processes use the rest.
  if (weight_bytes <= last_cache_bytes() / 2) {
    return {usual,
            "weights of " + std::to_string((weight_bytes + 999'999) / 1'000'000) + " MB stay in cache"};
  }
  return measured_or_remembered(kernels, parallel);
}

namespace generic {

RememberedLayout::RememberedLayout(const std::filesystem::path& folder, std::string key)
    : key_(std::move(key)) {
  if (!folder.empty()) {
    char name[32];
    static_cast<void>(std::snprintf(name, sizeof(name), "layout-%08x",
                                    crc32c(std::as_bytes(std::span(key_.data(), key_.size())))));
    path_ = folder / name;
  }
}

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

void RememberedLayout::write(PanelFormat format) const {
  if (path_.empty()) {
    return;
  }
  try {
    std::filesystem::create_directories(path_.parent_path());
    const std::string text = key_ + "\n" + std::string(name_of(format)) + "\n";
    io::AtomicFile file(path_);
    file.write(std::as_bytes(std::span(text.data(), text.size())));
    file.commit();
  } catch (const std::exception&) {
    // Measured again next time.
  }
}

}  // namespace generic
}  // namespace trit
