// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "bench/lib/limits.h"
#include "bench/lib/linear_benchmark.h"
#include "bench/lib/linear_report.h"
#include "bench/lib/machine.h"
#include "bench/lib/memory_read.h"
#include "bench/lib/report.h"
#include "bench/lib/timing.h"
#include "trit/cpu_caches.h"
#include "trit/error.h"

namespace trit::bench {
namespace {

TEST(TimingTest, Median) {
  EXPECT_EQ(median({3}), 3);
  EXPECT_EQ(median({9, 1, 5}), 5);
  EXPECT_EQ(median({9, 1, 5, 4}), 4.5);
}

TEST(TimingTest, TimesEverySubjectInEveryRound) {
  int short_calls = 0;
  const std::vector<std::function<void()>> subjects{
      [&] { ++short_calls; }, [] { std::this_thread::sleep_for(std::chrono::milliseconds(2)); }};
  std::int64_t last = 0;
  const auto seconds = time_interleaved(subjects, {.rounds = 5, .seconds_per_batch = 0.0005},
                                        [&](std::int64_t done, std::int64_t total) {
                                          EXPECT_EQ(done, last + 1);
                                          EXPECT_EQ(total, 10);
                                          last = done;
                                        });
  EXPECT_EQ(last, 10);
  ASSERT_EQ(seconds.size(), 2U);
  ASSERT_EQ(seconds[0].size(), 5U);
  EXPECT_GT(short_calls, 1000);  // repeated until a batch can be timed
  EXPECT_LT(median(seconds[0]), 0.0005);
  EXPECT_GE(median(seconds[1]), 0.002);
}

TEST(ReportTest, KeepsTheResultsOfOtherCases) {
  using nlohmann::ordered_json;
  constexpr const char* kKeys[] = {"threads", "tokens"};
  ordered_json results = ordered_json::array();
  results.push_back({{"threads", 1}, {"tokens", 8}, {"us", 2.0}});
  ordered_json old = ordered_json::array();
  old.push_back({{"threads", 1}, {"tokens", 8}, {"us", 3.0}});
  old.push_back({{"threads", 2}, {"tokens", 8}, {"us", 4.0}});
  old.push_back({{"threads", 1}, {"us", 5.0}});
  bench::keep_others(results, old, kKeys);
  ASSERT_EQ(results.size(), 3U);
  EXPECT_EQ(results[0]["us"], 2.0);
  EXPECT_EQ(results[1]["us"], 4.0);
  EXPECT_EQ(results[2]["us"], 5.0);
}

TEST(MachineTest, NamesAFile) {
  const Machine machine{"AMD EPYC (family 25 model 17)", 2, 0, 0, "gcc", ""};
  EXPECT_EQ(machine.slug(), "amd-epyc-family-25-model-17-2-cores");
  const Machine here = this_machine();
  EXPECT_GE(here.cores, 1);
  EXPECT_FALSE(here.cpu.empty());
  EXPECT_EQ(here.slug().find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-"), std::string::npos);
}

TEST(MachineTest, NamesACpuByItsInstructionsIfItsNameSaysNothing) {
  const auto name = [](const char* model, const char* family, const char* number, const char* has) {
    return cpu_name({.model_name = model, .family = family, .model = number, .instructions = has});
  };
  EXPECT_EQ(name("Intel(R) Xeon(R) Processor", "6", "167", "AMX"), "Intel Xeon (AMX)");
  EXPECT_EQ(name("AMD EPYC Processor", "25", "17", "AVX-512 VNNI"), "AMD EPYC (AVX-512 VNNI)");
  EXPECT_EQ(name("QEMU Virtual CPU version 2.5+", "15", "107", ""), "QEMU Virtual CPU version 2.5+");
  EXPECT_EQ(name("QEMU Virtual CPU version 2.5+", "15", "107", "AVX2"),
            "QEMU Virtual CPU version 2.5+ (AVX2)");
  EXPECT_EQ(name("", "", "", ""), "unknown CPU");
  EXPECT_EQ(name("Intel(R) Xeon(R) Platinum 8480+", "6", "143", "AMX"),
            "Intel Xeon Platinum 8480+ (family 6 model 143)");
  EXPECT_EQ(name("AMD EPYC 9R14 96-Core Processor", "25", "17", "AVX-512 VNNI"),
            "AMD EPYC 9R14 96-Core Processor (family 25 model 17)");
  EXPECT_EQ(Machine({"Intel Xeon (AMX)", 2, 0, 0, "gcc", ""}).slug(), "intel-xeon-amx-2-cores");
  const Machine here = this_machine();
  EXPECT_EQ(here.l2_bytes, cpu_caches().l2.bytes);
  EXPECT_EQ(here.l3_bytes, cpu_caches().l3.total_bytes);
}

// Every column of the table has a line that says what it is, and a share that is none is not printed.
TEST(ReportTest, TheLegendNamesEveryColumn) {
  LinearResult result{.backend = Backend::avx2,
                      .format = PanelFormat::two_bit,
                      .shape = {4, 4},
                      .tokens = 1,
                      .from = WeightsFrom::memory,
                      .weight_bytes = 4,
                      .microseconds = 1,
                      .layer_microseconds = 2,
                      .gops = 3,
                      .weight_gigabytes_per_second = 4,
                      .read_gigabytes_per_second = 3,
                      .share = {},
                      .limit = "memory read"};
  LinearReport report{1, 5, {}, {result}};
  EXPECT_NE(table(report).find("- (faster than memory read 3.0 GB/s)"), std::string::npos) << table(report);
  EXPECT_EQ(table(report).find('*'), std::string::npos) << table(report);
  EXPECT_TRUE(to_json(std::span(&report, 1))["results"][0]["share"].is_null());
  result.format = PanelFormat::base3;
  result.chosen = false;
  result.share = 0.5;
  report.results.push_back(result);
  EXPECT_NE(table(report).find("two_bit* "), std::string::npos) << table(report);
  EXPECT_EQ(table(report).find("base3*"), std::string::npos) << table(report);
  EXPECT_NE(table(report).find("50.0 % of memory read"), std::string::npos) << table(report);
  for (const char* column :
       {"layout", "N x K", "tokens", "weights", "product us", "layer us", "GB/s", "GOP/s", "share"}) {
    EXPECT_NE(table(report).find(column), std::string::npos) << column;
    EXPECT_NE(("\n" + legend()).find("\n" + std::string(column) + "  "), std::string::npos) << column;
  }
}

TEST(LimitsTest, BurstsTakeTime) {
  const auto parallel = make_parallel(2);
  MemoryRead memory(*parallel, std::size_t{5} << 20);
  EXPECT_GE(memory.bytes(), std::size_t{5} << 20);
  memory.run();
  for (const std::string& name : available_backends()) {
    const auto peak = int8_peak(backend_from_name(name));
    if (peak) {
      const auto start = std::chrono::steady_clock::now();
      peak->burst();
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      // No core does more than 512 multiply-adds a cycle at 6 GHz; a loop that was optimised away would.
      EXPECT_GT(seconds, peak->operations / 2 / 512 / 6e9) << peak->instruction;
    }
  }
  EXPECT_FALSE(int8_peak(Backend::scalar).has_value());
}

TEST(LinearBenchmarkTest, ReportsEveryCaseAndChecksIt) {
  LinearBenchmark options;
  options.shapes = {{70, 131}, {1, 1}, {64, 512}};
  options.tokens = {1, 7};
  options.threads = 2;
  options.timing = {.rounds = 3, .seconds_per_batch = 0.0001};
  for (const std::string& name : available_backends()) {
    options.backends.push_back(backend_from_name(name));
  }
  const LinearReport report = benchmark_linear(options);
  EXPECT_EQ(report.threads, 2);
  EXPECT_GT(report.memory_gigabytes_per_second, 0);
  ASSERT_EQ(report.limits.size(), options.backends.size());
  std::size_t layouts = 0;
  for (const Backend backend : options.backends) {
    layouts += available_formats(cpu_kernels_for(backend)).size();
  }
  ASSERT_EQ(report.results.size(), layouts * 6);  // small layers: from cache alone
  // Of a layer's layouts one is chosen.
  EXPECT_EQ(std::ranges::count_if(report.results, &LinearResult::chosen), std::ssize(options.backends) * 6);
  for (const LinearResult& result : report.results) {
    EXPECT_EQ(result.from, WeightsFrom::cache);
    EXPECT_GT(result.microseconds, 0);
    EXPECT_GT(result.weight_bytes, 0U);
    const double operations =
        2.0 * static_cast<double>(result.tokens * result.shape.out_features * result.shape.in_features);
    EXPECT_NEAR(result.gops, operations / result.microseconds / 1e3, 1e-6 * result.gops);
    EXPECT_GT(result.layer_microseconds, 0);
    EXPECT_GT(result.read_gigabytes_per_second, 0);
    if (result.share) {
      EXPECT_GT(*result.share, 0);
      EXPECT_LE(*result.share, 1.03);
    }
    EXPECT_TRUE(result.limit == "cache read" ||
                (result.limit == "int8 peak" && result.backend != Backend::scalar));
  }
}

// Each case without groups, then with them; both are checked against their reference.
TEST(LinearBenchmarkTest, ComparesGroupScalesWithNone) {
  LinearBenchmark options;
  options.backends = {Backend::scalar, backend_of(cpu_kernels_for(Backend::automatic))};
  options.shapes = {{70, 131}};
  options.tokens = {1, 7};
  options.timing = {.rounds = 3, .seconds_per_batch = 0.0001};
  options.group = 64;
  LinearReport report = benchmark_linear(options);
  ASSERT_EQ(report.results.size(), 8U);
  for (const LinearResult& result : report.results) {
    EXPECT_EQ(result.of_ungrouped.has_value(), result.group == 64);
    EXPECT_GT(result.of_ungrouped.value_or(1), 0);
  }
  EXPECT_EQ(std::ranges::count(report.results, 64, &LinearResult::group), 4);
  report.results.back().of_ungrouped = 0.75;
  EXPECT_NE(table(report).find("groups of 64: 0.750 of the speed without"), std::string::npos);
  EXPECT_EQ(to_json(std::span(&report, 1))["results"].back()["group"], 64);
}

TEST(LinearBenchmarkTest, LargeLayersAreMeasuredFromMemory) {
  LinearBenchmark options;
  const CpuKernels& kernels = cpu_kernels_for(Backend::automatic);
  options.backends = {backend_of(kernels)};
  options.shapes = {{4096, 4096}};  // 4 MiB at 2 bits, more than any core's L2
  options.tokens = {1};
  options.timing = {.rounds = 3, .seconds_per_batch = 0.0001};
  const LinearReport report = benchmark_linear(options);
  std::vector<PanelFormat> formats;  // measured from memory
  int chosen = 0;
  for (const LinearResult& result : report.results) {
    if (result.from == WeightsFrom::memory) {
      formats.push_back(result.format);
      chosen += result.chosen ? 1 : 0;
      EXPECT_GT(result.share.value_or(1), 0);
      EXPECT_FALSE(result.limit.empty());
    }
  }
  EXPECT_EQ(formats, available_formats(kernels));
  EXPECT_EQ(chosen, 1);
}

TEST(LinearBenchmarkTest, RefusesBadOptions) {
  const LinearBenchmark good{{Backend::scalar}, {{4, 4}}, {1}, 1, {.rounds = 1, .seconds_per_batch = 1e-5}};
  LinearBenchmark bad = good;
  bad.shapes = {{0, 4}};
  EXPECT_THROW(benchmark_linear(bad), Error);
  bad = good;
  bad.tokens = {0};
  EXPECT_THROW(benchmark_linear(bad), Error);
  bad = good;
  bad.backends.clear();
  EXPECT_THROW(benchmark_linear(bad), Error);
  bad = good;
  bad.group = 48;
  EXPECT_THROW(benchmark_linear(bad), Error);
}

}  // namespace
}  // namespace trit::bench
