// SPDX-License-Identifier: MIT
#include "bench/lib/machine.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <ctime>
#include <fstream>
#include <vector>

#include "trit/backend.h"
#include "trit/cpu_caches.h"
#include "trit/parallel.h"

namespace trit::bench {
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

std::string best_instructions() {
  const std::vector<std::string> backends = available_backends();
  const auto has = [&](Backend backend) { return std::ranges::count(backends, name_of(backend)) > 0; };
  return has(Backend::amx)           ? "AMX"
         : has(Backend::avx512_vnni) ? "AVX-512 VNNI"
         : has(Backend::avx_vnni)    ? "AVX-VNNI"
         : has(Backend::avx2)        ? "AVX2"
                                     : "";
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::array<char, 32> text{};
  return {text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

}  // namespace

std::string cpu_name(const CpuInfo& info) {
  std::string name;
  for (std::size_t at = 0; at < info.model_name.size(); ++at) {
    const bool mark = info.model_name.compare(at, 3, "(R)") == 0;
    if (mark) {
      at += 2;
    } else if (!(info.model_name[at] == ' ' && (name.empty() || name.back() == ' '))) {
      name += info.model_name[at];
    }
  }
  const bool generic = std::ranges::none_of(name, [](unsigned char c) { return std::isdigit(c) != 0; }) ||
                       name.starts_with("QEMU");
  if (generic) {
    name = name.substr(0, name.find(" Processor"));
  }
  name = name.substr(0, name.find_last_not_of(' ') + 1);
  if (name.empty()) {
    name = "unknown CPU";
  }
  if (generic) {
    return info.instructions.empty() ? name : name + " (" + info.instructions + ")";
  }
  return info.family.empty() ? name : name + " (family " + info.family + " model " + info.model + ")";
}

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
  const CpuCaches& caches = cpu_caches();
  machine.cpu = cpu_name({.model_name = cpu_info("model name"),
                          .family = cpu_info("cpu family"),
                          .model = cpu_info("model"),
                          .instructions = best_instructions()});
  machine.cores = make_parallel()->threads();
  machine.l2_bytes = caches.l2.bytes;
  machine.l3_bytes = caches.l3.total_bytes;
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

}  // namespace trit::bench
