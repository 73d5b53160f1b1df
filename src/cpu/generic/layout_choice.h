// SPDX-License-Identifier: MIT
//
// The parts of choose_layout, for its tests.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "trit/layout.h"

namespace trit::generic {

/// The format with the smallest product of its two times, measured now.
LayoutChoice measure_layouts(const CpuKernels& kernels, Parallel& parallel);

/// One choice in a file of its own: a line with the key that it was made for, a line with the format.
class RememberedLayout {
 public:
  RememberedLayout(const std::filesystem::path& folder, std::string key);
  /// Nothing where the file is missing, of another key, or damaged.
  std::optional<PanelFormat> read() const;
  /// Best effort.
  void write(PanelFormat format) const;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  std::string key_;
};

}  // namespace trit::generic
