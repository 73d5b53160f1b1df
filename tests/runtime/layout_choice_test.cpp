// SPDX-License-Identifier: MIT
//
// choose_layout: what decides, and a cache that may be missing, damaged or in the way.
#include "trit/layout.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>

#include "cpu/generic/layout_measure.h"
#include "cpu/support.h"
#include "environment_variable.h"
#include "io/test_folder.h"
#include "runtime/layout_choice.h"
#include "trit/error.h"

namespace trit::test {
namespace {

using Variable = EnvironmentVariable;

class LayoutChoiceTest : public KernelTest {
 protected:
  bool has(PanelFormat format) const {
    return std::any_of(kernels().layouts.begin(), kernels().layouts.end(), [&](const PanelLayout& layout) {
      return layout.format == format && layout.available();
    });
  }
  void write(const runtime::RememberedLayout& remembered, const std::string& text) const {
    std::ofstream(remembered.path(), std::ios::binary) << text;
  }

  static constexpr std::int64_t kHuge = std::int64_t{1} << 50;
  const TestFolder temporary_;
  const std::filesystem::path& folder_ = temporary_.path();
  std::unique_ptr<Parallel> parallel_ = make_parallel(1);
};

TEST_P(LayoutChoiceTest, SmallLayersHaveTheDefault) {
  const Variable none("TRIT_LAYOUT", nullptr);
  EXPECT_EQ(choose_layout(kernels(), *parallel_, 100'000).format, kernels().layouts.front().format);
}

TEST_P(LayoutChoiceTest, TheVariableDecidesWhereTheBackendHasTheFormat) {
  for (const PanelFormat format : {PanelFormat::two_bit, PanelFormat::base3}) {
    const Variable asked("TRIT_LAYOUT", std::string(name_of(format)).c_str());
    const PanelFormat wanted = has(format) ? format : kernels().layouts.front().format;
    EXPECT_EQ(choose_layout(kernels(), *parallel_, 1).format, wanted);
    EXPECT_EQ(choose_layout(kernels(), *parallel_, kHuge).format, wanted);
  }
  const Variable nonsense("TRIT_LAYOUT", "fastest");
  try {
    choose_layout(kernels(), *parallel_, 1);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find("TRIT_LAYOUT: unknown panel format 'fastest'"), 0U);
  }
}

TEST_P(LayoutChoiceTest, MeasuringGivesOneOfTheBackendsFormats) {
  if (kernels().layouts.size() == 1) {
    return;  // never measured
  }
  for (const std::optional<std::int64_t> bytes :
       {std::optional(std::int64_t{1} << 20), std::optional(std::int64_t{8} << 20),
        std::optional<std::int64_t>()}) {
    const LayoutChoice choice = generic::measure_layouts(kernels(), *parallel_, bytes);
    EXPECT_TRUE(has(choice.format));
    std::printf("%s: %s (%s)\n", std::string(name_of(kernels().backend)).c_str(),
                std::string(name_of(choice.format)).c_str(), choice.why.c_str());
  }
}

TEST(MeasuredSizeTest, IsNearAndGrows) {
  constexpr std::int64_t kMiB = 1 << 20;
  EXPECT_EQ(runtime::measured_size(1), kMiB);
  EXPECT_EQ(runtime::measured_size(8 * kMiB), 8 * kMiB);
  EXPECT_EQ(runtime::measured_size(128 * kMiB), 128 * kMiB);
  EXPECT_EQ(runtime::measured_size(153 * kMiB), std::nullopt);
  EXPECT_EQ(runtime::measured_size(std::int64_t{1} << 50), std::nullopt);
  for (std::int64_t bytes = kMiB, last = 0; bytes < 150 * kMiB; bytes += 300'000) {
    const auto size = runtime::measured_size(bytes);
    ASSERT_TRUE(size.has_value()) << bytes;
    const double ratio = static_cast<double>(bytes) / static_cast<double>(*size);
    EXPECT_GT(ratio, 0.84) << bytes;
    EXPECT_LT(ratio, 1.19) << bytes;
    EXPECT_GE(*size, last);
    last = *size;
  }
}

// Each of 300 such layers would stay in L2 by itself; together they do not.
TEST_P(LayoutChoiceTest, TheBytesOfTheWholeModelDecide) {
  const Variable none("TRIT_LAYOUT", nullptr);
  const Variable cache("XDG_CACHE_HOME", folder_.c_str());
  constexpr std::int64_t kLayerBytes = 64 << 10;
  if (kernels().layouts.size() > 1 && has(PanelFormat::base3)) {
    const LayoutChoice all = choose_layout(kernels(), *parallel_, 300 * kLayerBytes);
    EXPECT_EQ(all.why.find("measured"), 0U) << all.why;
    const LayoutChoice one = choose_layout(kernels(), *parallel_, kLayerBytes);
    EXPECT_NE(one.why.find("stay in L2"), std::string::npos) << one.why;
  }
}

TEST_P(LayoutChoiceTest, RemembersAndForgives) {
  const runtime::RememberedLayout remembered(folder_ / "new" / "trit", "a key | with 3 threads");
  EXPECT_EQ(remembered.read(), std::nullopt);
  remembered.write(PanelFormat::base3);
  EXPECT_EQ(remembered.read(), PanelFormat::base3);
  remembered.write(PanelFormat::two_bit);
  EXPECT_EQ(remembered.read(), PanelFormat::two_bit);
  for (const char* text : {"", "\n", "a key | with 3 threads", "a key | with 3 threads\n",
                           "a key | with 3 threads\nbase3", "a key | with 3 threads\nauto\n",
                           "a key | with 3 threads\nfastest\n", "another key\nbase3\n", "\xff\xfe\n\n\n"}) {
    write(remembered, text);
    EXPECT_EQ(remembered.read(), std::nullopt) << text;
  }
  remembered.write(PanelFormat::base3);
  EXPECT_EQ(remembered.read(), PanelFormat::base3);
}

TEST_P(LayoutChoiceTest, ACacheInTheWayIsNoError) {
  std::ofstream(folder_ / "file") << "not a folder";
  const runtime::RememberedLayout below_a_file(folder_ / "file" / "trit", "key");
  below_a_file.write(PanelFormat::base3);
  EXPECT_EQ(below_a_file.read(), std::nullopt);

  const runtime::RememberedLayout taken(folder_, "key");
  std::filesystem::create_directory(taken.path());
  taken.write(PanelFormat::base3);
  EXPECT_EQ(taken.read(), std::nullopt);

  const runtime::RememberedLayout nowhere({}, "key");
  nowhere.write(PanelFormat::base3);
  EXPECT_EQ(nowhere.read(), std::nullopt);
}

TEST_P(LayoutChoiceTest, LargeModelsAreMeasuredOnceAndKept) {
  const Variable none("TRIT_LAYOUT", nullptr);
  const Variable cache("XDG_CACHE_HOME", folder_.c_str());
  const LayoutChoice first = choose_layout(kernels(), *parallel_, kHuge);
  EXPECT_TRUE(has(first.format));
  EXPECT_EQ(choose_layout(kernels(), *parallel_, kHuge).format, first.format);
}

INSTANTIATE_TEST_SUITE_P(Backends, LayoutChoiceTest, testing::ValuesIn(available_rows()), row_name);

}  // namespace
}  // namespace trit::test
