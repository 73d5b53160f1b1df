// SPDX-License-Identifier: MIT
//
// cpu_caches: stored /sys trees (sys/*.txt, "file:content" a line), stored CPUID registers, and this machine
// beside lscpu.
#include "cpu/cpu_caches.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "io/test_folder.h"

namespace trit::test {
namespace {

constexpr std::int64_t kKiB = 1024;
constexpr std::int64_t kMiB = 1024 * kKiB;

class CpuCachesTest : public testing::Test {
 protected:
  /// The caches of `cpus` in the tree of tests/cpu/sys/<name>.txt.
  CpuCaches stored(const std::string& name, const std::vector<int>& cpus) {
    const std::filesystem::path root = folder_ / name;
    std::ifstream file(std::filesystem::path(TRIT_SYS_TREES) / (name + ".txt"));
    EXPECT_TRUE(file) << name;
    for (std::string line; std::getline(file, line);) {
      if (!line.starts_with('#')) {
        write(root / line.substr(0, line.find(':')), line.substr(line.find(':') + 1));
      }
    }
    return caches_of_folder(root, cpus);
  }
  static void write(const std::filesystem::path& path, const std::string& text) {
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text << "\n";
  }

  const TestFolder temporary_;
  const std::filesystem::path& folder_ = temporary_.path();
};

TEST_F(CpuCachesTest, IntelServer) {
  const CpuCaches all = stored("intel_server", {0, 1, 56, 57});
  EXPECT_EQ(all.l1, (CacheLevel{48 * kKiB, 2 * 48 * kKiB, 2}));
  EXPECT_EQ(all.l2, (CacheLevel{2 * kMiB, 4 * kMiB, 2}));
  EXPECT_EQ(all.l3, (CacheLevel{105 * kMiB, 105 * kMiB, 1}));
  EXPECT_EQ(all.last(), all.l3);
  EXPECT_EQ(all.last_bytes(1), 105 * kMiB);
  EXPECT_EQ(all.last_bytes(4), 105 * kMiB);
  const CpuCaches one_core = stored("intel_server", {1, 57});  // two threads of it
  EXPECT_EQ(one_core.l2, (CacheLevel{2 * kMiB, 2 * kMiB, 1}));
  EXPECT_EQ(one_core.l3, all.l3);
}

TEST_F(CpuCachesTest, AmdHasAnL3ForEachCoreComplex) {
  const CpuCaches all = stored("amd_server", {0, 1, 8, 16, 17, 96});
  EXPECT_EQ(all.l1, (CacheLevel{32 * kKiB, 5 * 32 * kKiB, 5}));
  EXPECT_EQ(all.l2, (CacheLevel{kMiB, 5 * kMiB, 5}));
  EXPECT_EQ(all.l3, (CacheLevel{32 * kMiB, 96 * kMiB, 3}));
  EXPECT_EQ(all.last_bytes(1), 32 * kMiB);
  EXPECT_EQ(all.last_bytes(2), 64 * kMiB);
  EXPECT_EQ(all.last_bytes(6), 96 * kMiB);
  EXPECT_EQ(stored("amd_server", {16, 17}).l3, (CacheLevel{32 * kMiB, 32 * kMiB, 1}));  // taskset -c 16,17
}

TEST_F(CpuCachesTest, ArmWithCoresOfTwoKinds) {
  const CpuCaches all = stored("arm_big_little", {0, 1, 2, 3, 4, 5, 6, 7});
  EXPECT_EQ(all.l1, (CacheLevel{64 * kKiB, 4 * (64 + 32) * kKiB, 8}));
  EXPECT_EQ(all.l2, (CacheLevel{512 * kKiB, (2 * 128 + 4 * 512) * kKiB, 6}));
  EXPECT_EQ(all.l3, (CacheLevel{4 * kMiB, 4 * kMiB, 1}));
  EXPECT_EQ(stored("arm_big_little", {2, 3}).l2, (CacheLevel{128 * kKiB, 128 * kKiB, 1}));
}

TEST_F(CpuCachesTest, NothingIsKnown) {
  EXPECT_EQ(stored("virtual_machine", {0, 1}), CpuCaches{});
  EXPECT_EQ(caches_of_folder(folder_ / "missing", std::vector<int>{0}), CpuCaches{});
  EXPECT_EQ(caches_of_cpuid([](auto, auto) { return std::array<std::uint32_t, 4>{}; }, 4), CpuCaches{});
  EXPECT_EQ(CpuCaches{}.last_bytes(4), 0);
}

TEST_F(CpuCachesTest, SizesThatAreNone) {
  for (const auto& [text, bytes] :
       std::vector<std::pair<std::string, std::int64_t>>{{"512K", 512 * kKiB},
                                                         {"32M", 32 * kMiB},
                                                         {"1G", kKiB * kMiB},
                                                         {"4096", 4096},
                                                         {"0K", 0},
                                                         {"-1K", 0},
                                                         {"K", 0},
                                                         {"12X", 0},
                                                         {"12KB", 0},
                                                         {"", 0},
                                                         {"99999999999999999999K", 0},
                                                         {"9223372036854775807G", 0}}) {
    const std::filesystem::path cache = folder_ / "cpu3" / "cache" / "index7";
    write(cache / "level", "2");
    write(cache / "type", "Unified");
    write(cache / "size", text);  // and no shared_cpu_list: the CPU's own
    EXPECT_EQ(caches_of_folder(folder_, std::vector<int>{3}).l2,
              (CacheLevel{bytes, bytes, bytes > 0 ? 1 : 0}))
        << text;
  }
}

// eax: type, level << 5, CPUs that share it less 1 << 14; ebx: ways, partitions, line less 1; ecx: sets
// less 1.
std::array<std::uint32_t, 4> registers(std::uint32_t type, std::uint32_t level, std::uint32_t sharers,
                                       std::uint32_t ways, std::uint32_t sets) {
  return {type | level << 5U | (sharers - 1) << 14U, (ways - 1) << 22U | 63U, sets - 1, 0};
}

TEST_F(CpuCachesTest, CpuidOfIntel) {
  const std::vector<std::array<std::uint32_t, 4>> leaf4 = {
      registers(1, 1, 2, 12, 64), registers(2, 1, 2, 8, 64), registers(3, 2, 2, 16, 2048),
      registers(3, 3, 128, 15, 114688)};
  const CpuCaches caches = caches_of_cpuid(
      [&](std::uint32_t leaf, std::uint32_t index) {
        return leaf == 4 && index < leaf4.size() ? leaf4[index] : std::array<std::uint32_t, 4>{};
      },
      8);
  EXPECT_EQ(caches.l1, (CacheLevel{48 * kKiB, 4 * 48 * kKiB, 4}));
  EXPECT_EQ(caches.l2, (CacheLevel{2 * kMiB, 8 * kMiB, 4}));
  EXPECT_EQ(caches.l3, (CacheLevel{105 * kMiB, 105 * kMiB, 1}));
}

TEST_F(CpuCachesTest, CpuidOfAmd) {
  const std::vector<std::array<std::uint32_t, 4>> amd = {registers(1, 1, 2, 8, 64), registers(2, 1, 2, 8, 64),
                                                         registers(3, 2, 2, 8, 2048),
                                                         registers(3, 3, 16, 16, 32768)};
  const CpuCaches caches = caches_of_cpuid(
      [&](std::uint32_t leaf, std::uint32_t index) {
        return leaf == 0x8000001DU && index < amd.size() ? amd[index] : std::array<std::uint32_t, 4>{};
      },
      32);
  EXPECT_EQ(caches.l1.bytes, 32 * kKiB);
  EXPECT_EQ(caches.l2, (CacheLevel{kMiB, 16 * kMiB, 16}));
  EXPECT_EQ(caches.l3, (CacheLevel{32 * kMiB, 64 * kMiB, 2}));
}

#if defined(__linux__)
/// lscpu -B -C=NAME,ONE-SIZE,ALL-SIZE,TYPE: level to the first two; empty where there is no such lscpu.
std::map<int, std::pair<std::int64_t, std::int64_t>> lscpu() {
  std::map<int, std::pair<std::int64_t, std::int64_t>> levels;
  // A fixed command: NOLINTNEXTLINE(bugprone-command-processor)
  std::FILE* const pipe = popen("lscpu -B -C=LEVEL,TYPE,ONE-SIZE,ALL-SIZE 2>/dev/null", "r");
  if (pipe == nullptr) {
    return levels;
  }
  std::string text;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) {
    text += static_cast<char>(c);
  }
  pclose(pipe);
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    int level = 0;
    std::string type;
    std::int64_t one = 0;
    std::int64_t all = 0;
    if (words >> level >> type >> one >> all && type != "Instruction") {
      levels[level] = {one, all};
    }
  }
  return levels;
}

TEST_F(CpuCachesTest, ThisMachineAsLscpuSays) {
  const auto levels = lscpu();
  if (levels.empty()) {
    std::printf("no lscpu with caches here: nothing to compare with\n");
    return;
  }
  const CpuCaches& here = cpu_caches();
  const bool all_cpus = allowed_cpus().size() == static_cast<std::size_t>(sysconf(_SC_NPROCESSORS_ONLN));
  for (const auto& [level, found] : std::map<int, CacheLevel>{{1, here.l1}, {2, here.l2}, {3, here.l3}}) {
    const auto wanted = levels.find(level);
    EXPECT_EQ(found.bytes, wanted == levels.end() ? 0 : wanted->second.first) << "L" << level;
    if (all_cpus && wanted != levels.end()) {  // lscpu counts those of CPUs that this process may not use
      EXPECT_EQ(found.total_bytes, wanted->second.second) << "L" << level;
    }
  }
}
#endif

}  // namespace
}  // namespace trit::test
