// SPDX-License-Identifier: MIT
#include "io/user_cache.h"

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <span>

#include "io/atomic_file.h"
#include "trit/crc32c.h"

namespace trit::io {

std::filesystem::path user_cache_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && *cache == '/') {
    return std::filesystem::path(cache) / "trit";
  }
  const char* home = std::getenv("HOME");
  return home != nullptr && *home == '/' ? std::filesystem::path(home) / ".cache" / "trit"
                                         : std::filesystem::path();
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

}  // namespace trit::io
