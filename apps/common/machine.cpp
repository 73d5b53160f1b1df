// SPDX-License-Identifier: MIT
#include "common/machine.h"

#include <unistd.h>

#include <array>
#include <cctype>
#include <ctime>
#include <fstream>

#include "trit/parallel.h"

namespace trit::apps {
namespace {

// "key<tabs>: value" of the first processor; empty where the file or the key does not exist.
std::string cpu_info(const std::string& key) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos || colon + 2 > line.size()) {
      continue;
    }
    const std::string found = line.substr(0, line.find_first_of("\t:"));
    if (found == key) {
      return line.substr(colon + 2);
    }
  }
  return {};
}

std::string cpu_name() {
  const std::string name = cpu_info("model name");
  const std::string family = cpu_info("cpu family");
  if (name.empty()) {
    return "unknown CPU";
  }
  // Virtual machines shorten the name; family and model tell the core.
  return family.empty() ? name : name + " (family " + family + " model " + cpu_info("model") + ")";
}

std::int64_t cache_bytes([[maybe_unused]] int name) {
#if defined(_SC_LEVEL2_CACHE_SIZE)
  const long bytes = sysconf(name);
  return bytes > 0 ? bytes : 0;
#else
  return 0;
#endif
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::array<char, 32> text{};
  return {text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

}  // namespace

std::string Machine::slug() const {
  std::string text;
  for (const char c : cpu + " " + std::to_string(cores) + " cores") {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
      text += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    } else if (!text.empty() && text.back() != '-') {
      text += '-';
    }
  }
  return text;
}

Machine this_machine() {
  Machine machine;
  machine.cpu = cpu_name();
  machine.cores = make_parallel()->threads();
#if defined(_SC_LEVEL2_CACHE_SIZE)
  machine.l2_bytes = cache_bytes(_SC_LEVEL2_CACHE_SIZE);
  machine.l3_bytes = cache_bytes(_SC_LEVEL3_CACHE_SIZE);
#endif
#if defined(__clang__)
  machine.compiler = "clang " + std::to_string(__clang_major__) + "." + std::to_string(__clang_minor__) +
                     "." + std::to_string(__clang_patchlevel__);
#else
  machine.compiler = "gcc " + std::to_string(__GNUC__) + "." + std::to_string(__GNUC_MINOR__) + "." +
                     std::to_string(__GNUC_PATCHLEVEL__);
#endif
  machine.date = utc_now();
  return machine;
}

}  // namespace trit::apps
