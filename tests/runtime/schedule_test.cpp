// SPDX-License-Identifier: MIT
//
// How a graph becomes steps, and where buffers lie: the decisions that cost speed, not correctness, when
// wrong.
#include "runtime/schedule.h"

#include <gtest/gtest.h>

#include <random>

#include "runtime/memory_plan.h"
#include "runtime/model_file.h"
#include "trit/error.h"

namespace trit::test {
namespace {

using runtime::BitLinearStep;
using runtime::DenseSegment;
using Values = std::vector<std::size_t>;

runtime::Schedule schedule_of(const ModelFile& file) {
  const TemporaryPath path("schedule.safetensors");
  file.save(path.get());
  const auto tensors = io::SafetensorsFile::open(path.get());
  return runtime::make_schedule(runtime::load_network(tensors));
}

TEST(Schedule, FloatLayersAreOneSegmentThatOnlyItsEndLeaves) {
  // 0 input, 1 conv, 2 relu, 3 pool, 4 conv, 5 relu, 6 pool, 7 flatten, 8 fc1, 9 relu, 10 fc2
  const runtime::Schedule schedule = schedule_of(simple_bitnet_cnn());
  ASSERT_EQ(schedule.steps.size(), 3U);
  const auto& dense = std::get<DenseSegment>(schedule.steps[0]);
  EXPECT_EQ(dense.inputs, Values{0});
  EXPECT_EQ(dense.outputs, Values{7});
  ASSERT_EQ(dense.steps.size(), 5U);
  EXPECT_TRUE(dense.steps[0].relu && dense.steps[2].relu);
  EXPECT_EQ(dense.steps[0].output, 2U);
  const auto& fc1 = std::get<BitLinearStep>(schedule.steps[1]);
  EXPECT_EQ((Values{fc1.node, fc1.input, fc1.output}), (Values{8, 7, 9}));
  EXPECT_TRUE(fc1.relu);
  EXPECT_FALSE(std::get<BitLinearStep>(schedule.steps[2]).relu);
}

TEST(Schedule, FlattenBetweenTernaryLayersCostsNothing) {
  ModelFile file({2, 3, 4});
  const std::size_t first = file.bit_linear("a", file.flatten(0), 24, 6, Norm::none);
  file.bit_linear("b", file.flatten(first), 6, 2, Norm::none);
  const runtime::Schedule schedule = schedule_of(file);
  EXPECT_EQ(schedule.steps.size(), 2U);
  EXPECT_EQ(schedule.storage, (Values{0, 0, 2, 2, 4}));
}

TEST(Schedule, AReluKeepsItsStepWhereTheSumsAreReadToo) {
  ModelFile file({4});
  const std::size_t sums = file.bit_linear("a", 0, 4, 4, Norm::none);
  file.add(sums, file.relu(sums));
  const runtime::Schedule schedule = schedule_of(file);
  ASSERT_EQ(schedule.steps.size(), 2U);
  EXPECT_FALSE(std::get<BitLinearStep>(schedule.steps[0]).relu);
  EXPECT_EQ(std::get<DenseSegment>(schedule.steps[1]).inputs, Values{1});
  EXPECT_EQ(std::get<DenseSegment>(schedule.steps[1]).steps.size(), 2U);
}

TEST(MemoryPlan, BuffersThatAreLiveTogetherDoNotOverlap) {
  for (unsigned seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    std::vector<runtime::Lifetime> buffers;
    for (int i = 0; i < 40; ++i) {
      const std::size_t first = random() % 20;
      buffers.push_back({random() % 5 == 0 ? 0 : random() % 5000, first, first + random() % 5});
    }
    const runtime::MemoryPlan plan = runtime::plan_memory(buffers);
    for (std::size_t i = 0; i < buffers.size(); ++i) {
      EXPECT_EQ(plan.offsets[i] % 64, 0U);
      EXPECT_LE(plan.offsets[i] + buffers[i].bytes, plan.bytes);
      for (std::size_t j = 0; j < i; ++j) {
        const bool together = buffers[i].first <= buffers[j].last && buffers[j].first <= buffers[i].last;
        const bool apart = plan.offsets[i] + buffers[i].bytes <= plan.offsets[j] ||
                           plan.offsets[j] + buffers[j].bytes <= plan.offsets[i];
        EXPECT_TRUE(!together || apart) << i << " and " << j;
      }
    }
  }
}

TEST(MemoryPlan, AChainNeedsItsTwoLargestNeighbours) {
  const std::vector<runtime::Lifetime> chain{{6400, 0, 1}, {640, 1, 2}, {6400, 2, 3}, {640, 3, 4}};
  EXPECT_EQ(runtime::plan_memory(chain).bytes, 7040U);
}

TEST(MemoryPlan, RefusesMoreThanAnyMachineHas) {
  EXPECT_THROW(runtime::plan_memory(std::vector<runtime::Lifetime>{{std::size_t{1} << 40, 0, 0}}), Error);
  const std::vector<runtime::Lifetime> many(5, {std::size_t{1} << 34, 0, 0});
  EXPECT_THROW(runtime::plan_memory(many), Error);
}

}  // namespace
}  // namespace trit::test
