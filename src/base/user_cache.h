// SPDX-License-Identifier: MIT
//
// Files in the user's cache folder, for measurements that hold until something that their key names
// changes. A cache that cannot be read or written is ignored.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace trit {

/// $XDG_CACHE_HOME/trit or ~/.cache/trit; empty where neither is an absolute path.
std::filesystem::path user_cache_folder();

/// The file of `key` in `folder`: PREFIX-xxxxxxxx, by the key's CRC-32C. Empty where `folder` is.
std::filesystem::path cached_file(const std::filesystem::path& folder, std::string_view prefix,
                                  std::string_view key);

/// Writes `text` to `path` atomically. Returns whether it worked: no folder, no
/// permission and a full disk are not errors.
bool write_cached_file(const std::filesystem::path& path, std::string_view text);

}  // namespace trit
