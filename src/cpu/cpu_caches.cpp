// SPDX-License-Identifier: MIT
#include "cpu/cpu_caches.h"

#include "base/integer.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace trit {
namespace {

CacheLevel* level_of(CpuCaches& caches, std::int64_t level) {
  return level == 1 ? &caches.l1 : level == 2 ? &caches.l2 : level == 3 ? &caches.l3 : nullptr;
}

void add_cache(CpuCaches& caches, std::int64_t level, std::int64_t bytes, int instances) {
  CacheLevel* const known = level_of(caches, level);
  if (known != nullptr && bytes > 0) {
    known->bytes = std::max(known->bytes, bytes);
    known->total_bytes += bytes * instances;
    known->instances += instances;
  }
}

/// The first word of a file; empty where there is none.
std::string word_of(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string word;
  file >> word;
  return word;
}

/// "48K", "32M", "2G", "4096"; nothing for anything else.
std::optional<std::int64_t> bytes_of(const std::string& text) {
  std::int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  constexpr std::int64_t kMost = std::int64_t{1} << 32;  // with the unit still in range
  if (error != std::errc() || value < 1 || value > kMost || end - rest > 1) {
    return std::nullopt;
  }
  switch (rest == end ? 'B' : *rest) {
    case 'B':
      return value;
    case 'K':
      return value << 10;
    case 'M':
      return value << 20;
    case 'G':
      return value << 30;
    default:
      return std::nullopt;
  }
}

#if defined(__x86_64__)
std::array<std::uint32_t, 4> this_cpuid(std::uint32_t leaf, std::uint32_t subleaf) {
  std::array<std::uint32_t, 4> registers{};
  if (__get_cpuid_count(leaf, subleaf, &registers[0], &registers[1], &registers[2], &registers[3]) == 0) {
    return {};
  }
  return registers;
}
#endif

CpuCaches find_caches() {
  const std::vector<int> cpus = allowed_cpus();
  CpuCaches caches = caches_of_folder("/sys/devices/system/cpu", cpus);
#if defined(__x86_64__)
  if (caches.last().bytes == 0) {
    caches = caches_of_cpuid(this_cpuid, static_cast<int>(cpus.size()));
  }
#endif
  return caches;
}

}  // namespace

std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
#if defined(__linux__)
  // As large as the system wants: a plain cpu_set_t ends at 1,024 CPUs.
  for (int most = CPU_SETSIZE; most <= (1 << 20) && cpus.empty(); most *= 2) {
    const std::size_t bytes = CPU_ALLOC_SIZE(most);
    const auto free = [](cpu_set_t* set) { CPU_FREE(set); };
    const std::unique_ptr<cpu_set_t, decltype(free)> set(CPU_ALLOC(most), free);
    if (set == nullptr || sched_getaffinity(0, bytes, set.get()) != 0) {
      continue;
    }
    for (int cpu = 0; cpu < most; ++cpu) {
      if (CPU_ISSET_S(static_cast<unsigned>(cpu), bytes, set.get())) {
        cpus.push_back(cpu);
      }
    }
  }
#endif
  if (cpus.empty()) {
    for (int cpu = 0; cpu < static_cast<int>(std::max(1U, std::thread::hardware_concurrency())); ++cpu) {
      cpus.push_back(cpu);
    }
  }
  return cpus;
}

CpuCaches caches_of_folder(const std::filesystem::path& folder, std::span<const int> cpus) {
  CpuCaches caches;
  std::set<std::pair<std::int64_t, std::string>> seen;  // a level, and the CPUs that share the cache
  for (const int cpu : cpus) {
    const std::string name = "cpu" + std::to_string(cpu);
    std::error_code error;
    for (std::filesystem::directory_iterator entry(folder / name / "cache", error), end;
         entry != end && !error; entry.increment(error)) {
      const std::filesystem::path& path = entry->path();
      const std::string type = word_of(path / "type");
      const auto bytes = bytes_of(word_of(path / "size"));
      const auto level = bytes_of(word_of(path / "level"));
      if (!bytes || !level || (type != "Data" && type != "Unified")) {
        continue;
      }
      const std::string sharers = word_of(path / "shared_cpu_list");
      if (seen.emplace(*level, sharers.empty() ? name : sharers).second) {
        add_cache(caches, *level, *bytes, 1);
      }
    }
  }
  return caches;
}

CpuCaches caches_of_cpuid(const CpuidFunction& cpuid, int cpus) {
  // Intel's and AMD's leaves have the same fields. AMD's leaf 4 is empty, and so is Intel's 0x8000001D.
  CpuCaches caches;
  for (const std::uint32_t leaf : {0x4U, 0x8000001DU}) {
    constexpr std::uint32_t kMaxCaches = 16;
    for (std::uint32_t index = 0; index < kMaxCaches; ++index) {
      const auto [a, b, c, d] = cpuid(leaf, index);
      const std::uint32_t type = a & 0x1fU;  // 0: no more, 1: data, 2: instructions, 3: both
      if (type == 0) {
        break;
      }
      if (type == 2) {
        continue;
      }
      const std::int64_t ways = (b >> 22U) + 1;
      const std::int64_t partitions = ((b >> 12U) & 0x3ffU) + 1;
      const std::int64_t line_bytes = (b & 0xfffU) + 1;
      const std::int64_t sets = std::int64_t{c} + 1;
      const int sharers = static_cast<int>((a >> 14U) & 0xfffU) + 1;
      add_cache(caches, (a >> 5U) & 0x7U, ways * partitions * line_bytes * sets, ceil_div(cpus, sharers));
    }
    if (caches.last().bytes > 0) {
      break;
    }
  }
  return caches;
}

const CpuCaches& cpu_caches() {
  static const CpuCaches caches = find_caches();
  return caches;
}

}  // namespace trit
