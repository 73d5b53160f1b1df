// SPDX-License-Identifier: MIT
//
// Which nodes run together, and where buffers lie: the decisions that cost speed, not correctness, when
// wrong.
#include "runtime/fusion.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <stdexcept>

#include "runtime/dense.h"
#include "runtime/memory_plan.h"
#include "runtime/model_file.h"
#include "runtime/ops/operator.h"
#include "runtime/program.h"
#include "trit/error.h"
#include "trit/parallel.h"

namespace trit::test {
namespace {

using Values = std::vector<std::size_t>;

/// The steps of a file, and the network that they are made of.
struct Fused {
  explicit Fused(const ModelFile& file) {
    const TemporaryPath path("fusion.safetensors");
    file.save(path.get());
    network = runtime::load_network(io::SafetensorsFile::open(path.get()));
    steps = runtime::fuse(network);
  }
  Values results() const {
    Values nodes;
    for (const runtime::Step& step : steps) {
      nodes.push_back(step.result);
    }
    return nodes;
  }

  runtime::Network network;
  std::vector<runtime::Step> steps;
};

TEST(Fusion, ReluAndPoolJoinTheLayerInFront) {
  // 0 input, 1 conv, 2 relu, 3 pool, 4 conv, 5 relu, 6 pool, 7 flatten, 8 fc1, 9 relu, 10 fc2
  const Fused fused(simple_bitnet_cnn());
  EXPECT_EQ(fused.results(), (Values{3, 6, 7, 9, 10}));
  EXPECT_TRUE(fused.steps[0].relu && fused.steps[1].relu && fused.steps[3].relu);
  EXPECT_EQ(fused.steps[0].pool, std::optional<std::size_t>(3));
  EXPECT_FALSE(fused.steps[2].relu || fused.steps[2].pool || fused.steps[4].relu);
}

TEST(Fusion, AReluKeepsItsStepWhereTheSumsAreReadToo) {
  ModelFile file({4});
  const std::size_t sums = file.bit_linear("a", 0, 4, 4, Norm::none);
  file.add(sums, file.relu(sums));
  const Fused fused(file);
  EXPECT_EQ(fused.results(), (Values{1, 2, 3}));
  EXPECT_FALSE(fused.steps[0].relu);
  EXPECT_TRUE(fused.steps[1].relu);
}

TEST(Fusion, OneReluAndOnePoolAStep) {
  ModelFile file({2, 8, 8});
  std::size_t at = file.relu(file.relu(0));                               // 1, 2
  at = file.pool("avg_pool2d", file.pool("max_pool2d", at, 2, 2), 2, 1);  // 3, 4
  file.relu(at);                                                          // 5
  const Fused fused(file);
  EXPECT_EQ(fused.results(), (Values{1, 3, 4, 5}));
}

TEST(Operators, OneWithoutCodeIsAnErrorAndNoIdentity) {
  class Unfinished final : public runtime::Operator {
    runtime::Shape load(runtime::NodeFile& file) override { return file.input(); }
  };
  ModelFile file({4});
  file.gelu(0, "tanh");
  Fused fused(file);
  const auto dense = runtime::make_builtin_library();
  const auto parallel = make_parallel(1);
  const runtime::ProgramParts parts{fused.network, fused.steps, *dense, *parallel};
  EXPECT_NO_THROW(runtime::Program(parts, 1));
  fused.network.graph.nodes[1].op = std::make_unique<Unfinished>();
  EXPECT_THROW(runtime::Program(parts, 1), std::logic_error);
}

TEST(Fusion, BatchNormJoinsTheWeightsInFront) {
  ModelFile file({3, 8, 8});
  std::size_t at = file.conv2d("a", 0, 3, 4, 3, 1, 1, false);                  // 1
  at = file.pool("max_pool2d", file.relu(file.batch_norm("n", at, 4)), 2, 2);  // 2, 3, 4
  at = file.batch_norm("alone", at, 4);                                        // 5
  at = file.linear("b", file.flatten(at), 64, 5);                              // 6, 7
  file.gelu(file.batch_norm("m", at, 5), "tanh");                              // 8, 9
  const Fused fused(file);
  EXPECT_EQ(fused.results(), (Values{4, 5, 6, 8, 9}));
  EXPECT_TRUE(fused.steps[0].relu);
}

/// A weight that becomes zero, denormal or infinite would change what an infinity or a NaN gives.
TEST(Fusion, BatchNormStaysWhereAWeightWouldBeLost) {
  for (const auto& [scale, joins] : {std::pair{2.0F, true}, {0.0F, false}, {1e-39F, false}, {3e38F, false}}) {
    ModelFile file({4});
    file.batch_norm("n", file.linear("a", 0, 4, 4, false), 4);
    file.set_floats("a.weight", {4, 4}, std::vector<float>(16, 2.0F));
    file.set_floats("n.weight", {4}, {1, scale, 1, 1});
    file.set_floats("n.running_mean", {4}, {0, 0, 0, 0});
    EXPECT_EQ(Fused(file).results(), joins ? Values{2} : (Values{1, 2})) << scale;
  }
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
