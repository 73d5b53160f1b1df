// SPDX-License-Identifier: MIT
#include "base/user_cache.h"

#include <cstdio>
#include <exception>
#include <span>

#include "base/atomic_file.h"
#include "base/environment.h"
#include "trit/crc32c.h"

namespace trit {

std::filesystem::path user_cache_folder() {
  const std::string_view cache = environment_variable("XDG_CACHE_HOME");
  if (cache.starts_with('/')) {
    return std::filesystem::path(cache) / "trit";
  }
  const std::string_view home = environment_variable("HOME");
  return home.starts_with('/') ? std::filesystem::path(home) / ".cache" / "trit" : std::filesystem::path();
}

std::filesystem::path cached_file(const std::filesystem::path& folder, std::string_view prefix,
                                  std::string_view key) {
  if (folder.empty()) {
    return {};
  }
  char digits[16];
  static_cast<void>(std::snprintf(digits, sizeof(digits), "-%08x",
                                  crc32c(std::as_bytes(std::span(key.data(), key.size())))));
  return folder / (std::string(prefix) + digits);
}

bool write_cached_file(const std::filesystem::path& path, std::string_view text) {
  if (path.empty()) {
    return false;
  }
  try {
    std::filesystem::create_directories(path.parent_path());
    AtomicFile file(path);
    file.write(std::as_bytes(std::span(text.data(), text.size())));
    file.commit();
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace trit
