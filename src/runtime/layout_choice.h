// SPDX-License-Identifier: MIT
//
// The parts of choose_layout, for its tests.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "trit/layout.h"

namespace trit::runtime {

/// The size that stands for a model of `weight_bytes` in measurements: the nearest power of the square root
/// of 2, at least 1 MiB. Nothing for larger models, which are all measured from memory.
std::optional<std::int64_t> measured_size(std::int64_t weight_bytes);

/// One choice in a file of its own: a line with the key that it was made for, a line with the format.
class RememberedLayout {
 public:
  RememberedLayout(const std::filesystem::path& folder, std::string key);
  /// Nothing if the file is missing, damaged or of another key.
  std::optional<PanelFormat> read() const;
  /// Whether it worked. No folder, no permission and a full disk are not errors.
  bool write(PanelFormat format) const;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  std::string key_;
};

}  // namespace trit::runtime
