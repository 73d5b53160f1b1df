// SPDX-License-Identifier: MIT
//
// The parts of choose_layout, for its tests.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "trit/layout.h"

namespace trit::generic {

/// The sizes of models that are measured: powers of the square root of 2 from 1 MiB on, of which this is the
/// nearest one to `weight_bytes`. Nothing for sizes that are measured from memory, all alike.
std::optional<std::int64_t> measured_size(std::int64_t weight_bytes);

/// The format that decodes fastest, measured now with weights of `bytes` at 2 bits each, read again and
/// again; of formats within 2 % the one that is fastest with many tokens. Nothing: read from memory.
LayoutChoice measure_layouts(const CpuKernels& kernels, Parallel& parallel,
                             std::optional<std::int64_t> bytes);

/// One choice in a file of its own: a line with the key that it was made for, a line with the format.
class RememberedLayout {
 public:
  RememberedLayout(const std::filesystem::path& folder, std::string key);
  /// Nothing where the file is missing, of another key, or damaged.
  std::optional<PanelFormat> read() const;
  /// Whether it worked: no folder, no permission and a full disk are no errors.
  bool write(PanelFormat format) const;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  std::string key_;
};

}  // namespace trit::generic
