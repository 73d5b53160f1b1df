// SPDX-License-Identifier: MIT
//
// The autotuner's search, and the plans it keeps for a GPU model: their text, a file that is damaged, cut, of
// another GPU or being replaced. Needs no GPU.
#include "cuda/autotune/tuning.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "cuda/autotune/autotune.h"
#include "io/test_folder.h"
#include "trit/error.h"

namespace trit::test {
namespace {

using cuda::DecodePlan;
using cuda::GemmSm80Plan;
using cuda::GemmSm90Plan;
using cuda::load_tuning;
using cuda::ProductPlan;
using cuda::save_tuning;
using cuda::Tuning;
using cuda::tuning_file;

const std::string kKey = cuda::tuning_key("NVIDIA H200", {90, 132, 232448});

Tuning some_plans() {
  Tuning tuning;
  tuning.set(1, 4096, 4096, DecodePlan{2, 1, 16});
  tuning.set(4, 4096, 4096, DecodePlan{4, 3, 5});
  tuning.set(64, 4096, 4096, GemmSm90Plan{false, 128, 64, 2});
  tuning.set(1024, 14336, 4096, GemmSm90Plan{true, 256, 96, 1});
  tuning.set(33, 10, 512, GemmSm80Plan{32, 3});
  return tuning;
}

ProductPlan found(const Tuning& tuning, std::int64_t m, std::int64_t n, std::int64_t k) {
  const ProductPlan* const plan = tuning.find(m, n, k);
  return plan == nullptr ? ProductPlan(DecodePlan{0, 0, 0}) : *plan;
}

std::string error_of(const std::string& text) {
  try {
    Tuning::from_text(text, kKey);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

class TuningTest : public testing::Test {
 protected:
  TuningTest() {
    setenv("XDG_CACHE_HOME", folder_.c_str(), 1);
    unsetenv("TRIT_CUDA_TUNING");
  }
  ~TuningTest() override { unsetenv("TRIT_CUDA_TUNING"); }
  /// What load_tuning finds and what it says on standard error.
  std::pair<std::size_t, std::string> load() {
    testing::internal::CaptureStderr();
    const Tuning tuning = load_tuning(tuning_file(kKey), kKey);
    return {tuning.size(), testing::internal::GetCapturedStderr()};
  }
  void write(const std::string& text) { std::ofstream(tuning_file(kKey).path) << text; }

  const TestFolder temporary_;
  const std::filesystem::path& folder_ = temporary_.path();
};

/// Times that the test invents; what was asked for is kept.
class InventedTimer final : public cuda::PlanTimer {
 public:
  explicit InventedTimer(std::function<double(const ProductPlan&)> microseconds)
      : microseconds_(std::move(microseconds)) {}
  std::vector<double> time(std::span<const ProductPlan> plans, int rounds) override {
    std::vector<double> times;
    for (const ProductPlan& plan : plans) {
      times.push_back(microseconds_(plan));
    }
    calls.emplace_back(plans.begin(), plans.end());
    rounds_of_calls.push_back(rounds);
    return times;
  }
  void check(const ProductPlan& plan) override { checked.push_back(plan); }

  std::vector<std::vector<ProductPlan>> calls;
  std::vector<int> rounds_of_calls;
  std::vector<ProductPlan> checked;

 private:
  std::function<double(const ProductPlan&)> microseconds_;
};

TEST(Autotune, KeepsWhatBeatsTheDefaultPlan) {
  const cuda::Device h200{.compute_capability = 90, .multiprocessors = 132, .shared_bytes = 232448};
  for (const std::int64_t tokens : {1, 8, 64, 1024}) {
    const ProductPlan usual = cuda::default_plan(h200, tokens, 4096, 4096);
    const auto possible = cuda::possible_plans(h200, tokens, 4096, 4096);
    const auto other = std::ranges::find_if(possible, [&](const auto& plan) { return plan != usual; });
    ASSERT_NE(other, possible.end());
    for (const double gain : {1.01, 1.03}) {
      InventedTimer timer([&](const ProductPlan& plan) {
        return plan == *other ? 10.0 : plan == usual ? 10.0 * gain : 20.0;
      });
      const cuda::Autotuned found = cuda::autotune(h200, tokens, 4096, 4096, 7, timer);
      EXPECT_EQ(found.default_plan, usual);
      EXPECT_EQ(found.best, gain > 1.02 ? *other : usual) << cuda::name_of(found.best);
      EXPECT_EQ(found.best_microseconds, gain > 1.02 ? 10.0 : 10.0 * gain);
      EXPECT_EQ(found.default_microseconds, 10.0 * gain);
      // Every candidate once, then the default plan and the best of the others; these are checked.
      ASSERT_EQ(timer.calls.size(), 2U);
      EXPECT_EQ(timer.rounds_of_calls, (std::vector<int>{1, 7}));
      EXPECT_EQ(timer.calls[0].size(), found.candidates);
      for (const ProductPlan& plan : possible) {
        EXPECT_EQ(std::ranges::count(timer.calls[0], plan), 1) << cuda::name_of(plan);
      }
      EXPECT_EQ(timer.calls[1], timer.checked);
      EXPECT_EQ(timer.checked.size(), std::min<std::size_t>(6, found.candidates));
      EXPECT_EQ(timer.checked[0], usual);
      EXPECT_EQ(timer.checked[1], *other);
    }
  }
}

TEST(TunedPlans, TakesWhatCanRun) {
  const cuda::Device h200{.compute_capability = 90, .multiprocessors = 132, .shared_bytes = 232448};
  const std::string key = cuda::tuning_key("a GPU", h200);
  const TestFolder folder;
  const std::string path = folder.path() / "plans";
  setenv("TRIT_CUDA_TUNING", path.c_str(), 1);
  Tuning tuning;
  tuning.set(64, 4096, 4096, GemmSm90Plan{true, 256, 64, 1});
  tuning.set(16, 4096, 4096, GemmSm90Plan{true, 256, 72, 1});  // no such tile
  ASSERT_TRUE(save_tuning(tuning_file(key), key, tuning));
  const cuda::TunedPlans plans("a GPU", h200);
  unsetenv("TRIT_CUDA_TUNING");
  EXPECT_EQ(plans.source(), path);
  EXPECT_EQ(plans.plan(64, 4096, 4096), ProductPlan(GemmSm90Plan{true, 256, 64, 1}));
  EXPECT_EQ(plans.plan(16, 4096, 4096), cuda::default_plan(h200, 16, 4096, 4096));
  EXPECT_EQ(plans.plan(32, 4096, 4096), cuda::default_plan(h200, 32, 4096, 4096));
}

TEST(PlanNames, AreReadBack) {
  for (const ProductPlan& plan :
       {ProductPlan(cuda::DecodeOnePlan{}), ProductPlan(DecodePlan{2, 3, 5}),
        ProductPlan(GemmSm80Plan{64, 3}), ProductPlan(GemmSm90Plan{true, 256, 128, 1}),
        ProductPlan(GemmSm90Plan{false, 128, 64, 2})}) {
    EXPECT_EQ(cuda::plan_from_name(cuda::name_of(plan)), plan) << cuda::name_of(plan);
    const std::string name = cuda::name_of(plan);
    for (std::size_t length = 0; length < name.size(); ++length) {
      // "split 128x64 / 2" without its end may be a plan of its own only where numbers were cut.
      const auto cut = cuda::plan_from_name(name.substr(0, length));
      EXPECT_TRUE(!cut || *cut != plan) << name.substr(0, length);
    }
  }
  for (const char* name :
       {"", "decode", "decode S2 P3", "decode S2 P3 Q0", "decode S2 P3 Q-1", "decode S2 P3 Q5 ",
        "decode S2 P3 Q99999999999", "persistent 256", "persistent 256x128 / 2", "split 128x64",
        "split 128 x 64 / 2", "gemm_sm80 64", "Decode S2 P3 Q5", "scalar"}) {
    EXPECT_EQ(cuda::plan_from_name(name), std::nullopt) << name;
  }
}

TEST(TuningText, IsReadBack) {
  const Tuning tuning = some_plans();
  const Tuning again = Tuning::from_text(tuning.text(kKey), kKey);
  EXPECT_EQ(again.size(), tuning.size());
  EXPECT_EQ(again.text(kKey), tuning.text(kKey));
  EXPECT_EQ(Tuning::from_text(Tuning().text(kKey), kKey).size(), 0U);
}

TEST(TuningText, AnyChangeIsFound) {
  const std::string text = some_plans().text(kKey);
  for (std::size_t length = 0; length < text.size(); ++length) {
    EXPECT_NE(error_of(text.substr(0, length)), "no error") << length;
  }
  for (std::size_t at = 0; at < text.size(); ++at) {
    for (const int bit : {0, 3, 5}) {
      std::string changed = text;
      changed[at] = static_cast<char>(changed[at] ^ (1 << bit));
      EXPECT_NE(error_of(changed), "no error") << at;
    }
  }
  EXPECT_NE(error_of(text + "\n"), "no error");
  EXPECT_NE(error_of(text + text), "no error");
  const std::string other = cuda::tuning_key("NVIDIA H100 80GB HBM3", {90, 132, 232448});
  const std::string message = error_of(some_plans().text(other));
  EXPECT_NE(message.find("H100"), std::string::npos) << message;
  EXPECT_NE(message.find("H200"), std::string::npos) << message;
}

TEST(TuningPlans, AreOfTheirShapeAndUpToEightTokensOfTheNext) {
  Tuning tuning = some_plans();
  EXPECT_EQ(found(tuning, 1, 4096, 4096), ProductPlan(DecodePlan{2, 1, 16}));
  EXPECT_EQ(found(tuning, 2, 4096, 4096), ProductPlan(DecodePlan{4, 3, 5}));
  EXPECT_EQ(tuning.find(5, 4096, 4096), nullptr);
  Tuning of_four;  // no plan for one token
  of_four.set(4, 4096, 4096, DecodePlan{4, 3, 5});
  EXPECT_EQ(of_four.find(1, 4096, 4096), nullptr);
  EXPECT_NE(of_four.find(2, 4096, 4096), nullptr);
  EXPECT_EQ(tuning.find(63, 4096, 4096), nullptr);
  EXPECT_EQ(found(tuning, 64, 4096, 4096), ProductPlan(GemmSm90Plan{false, 128, 64, 2}));
  EXPECT_EQ(tuning.find(64, 4096, 4095), nullptr);
  EXPECT_EQ(tuning.find(2000, 14336, 4096), nullptr);
  tuning.erase(4, 4096, 4096);
  EXPECT_EQ(tuning.find(2, 4096, 4096), nullptr);
}

TEST_F(TuningTest, IsKeptInTheUsersCache) {
  EXPECT_EQ(load(), std::pair(std::size_t{0}, std::string()));
  EXPECT_TRUE(save_tuning(tuning_file(kKey), kKey, some_plans()));
  EXPECT_EQ(load(), std::pair(std::size_t{5}, std::string()));
  EXPECT_EQ(tuning_file(kKey).path.parent_path(), folder_ / "trit");
  EXPECT_NE(tuning_file(kKey).path, tuning_file(kKey + " ").path);
  setenv("TRIT_CUDA_TUNING", "off", 1);
  EXPECT_EQ(load(), std::pair(std::size_t{0}, std::string()));
  EXPECT_FALSE(save_tuning(tuning_file(kKey), kKey, some_plans()));
}

TEST_F(TuningTest, ADamagedFileIsIgnoredWithAWarning) {
  save_tuning(tuning_file(kKey), kKey, some_plans());
  const std::string text = some_plans().text(kKey);
  for (const std::string& damaged :
       {std::string(), text.substr(0, text.size() / 2), std::string("\xff\0\n\n", 4), "x" + text,
        some_plans().text("another GPU"), kKey + "\n4096 4096 1 magic\n"}) {
    write(damaged);
    const auto [plans, warning] = load();
    EXPECT_EQ(plans, 0U);
    EXPECT_NE(warning.find("trit: warning: " + tuning_file(kKey).path.string() + " is ignored"),
              std::string::npos)
        << warning;
  }
  // The next run of the tuner replaces it.
  EXPECT_TRUE(save_tuning(tuning_file(kKey), kKey, some_plans()));
  EXPECT_EQ(load(), std::pair(std::size_t{5}, std::string()));
}

TEST_F(TuningTest, AFileThatIsNamedMustBeThere) {
  const std::string path = folder_ / "plans";
  setenv("TRIT_CUDA_TUNING", path.c_str(), 1);
  try {
    load();
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("TRIT_CUDA_TUNING: " + path), std::string::npos) << error.what();
  }
  testing::internal::GetCapturedStderr();
  EXPECT_TRUE(save_tuning(tuning_file(kKey), kKey, some_plans()));
  EXPECT_EQ(load(), std::pair(std::size_t{5}, std::string()));
}

TEST_F(TuningTest, ACacheInTheWayIsNoError) {
  std::ofstream(folder_ / "trit") << "not a folder";
  EXPECT_FALSE(save_tuning(tuning_file(kKey), kKey, some_plans()));
  EXPECT_EQ(load(), std::pair(std::size_t{0}, std::string()));
}

// Whoever reads while another process writes sees the old file or the new one.
TEST_F(TuningTest, IsReplacedAtOnce) {
  Tuning large = some_plans();
  for (std::int64_t n = 1; n < 3000; ++n) {
    large.set(1, n, 1, DecodePlan{2, 1, 1});
  }
  save_tuning(tuning_file(kKey), kKey, large);
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    while (!stop) {
      save_tuning(tuning_file(kKey), kKey, some_plans());
      save_tuning(tuning_file(kKey), kKey, large);
    }
  });
  for (int i = 0; i < 100; ++i) {
    const auto [plans, warning] = load();
    EXPECT_TRUE(plans == 5 || plans == large.size()) << plans;
    EXPECT_EQ(warning, "");
  }
  stop = true;
  writer.join();
}

}  // namespace
}  // namespace trit::test
