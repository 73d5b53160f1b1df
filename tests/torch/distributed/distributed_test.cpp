// SPDX-License-Identifier: MIT
//
// Groups of processes on the CPU (Gloo): gradients, the sharded optimizer, and what goes wrong. Each case
// starts this program several times as workers, which leave their results in a folder.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>

#include "environment_variable.h"
#include "torch/distributed/forwarder.h"
#include "torch/distributed/launch.h"
#include "torch/distributed/named_tensors.h"
#include "torch/distributed/training.h"
#include "torch/distributed/worker_functions.h"
#include "torch/ops.h"
#include "trit/distributed.h"
#include "trit/error.h"

namespace trit::test {
namespace {

namespace fs = std::filesystem;
using distributed::DataParallel;
using distributed::ProcessGroup;
using distributed::ShardedOptimizer;
using torch::Tensor;

class Distributed : public testing::Test {
 protected:
  // As the processes (launch.h): LibTorch's float products are not the same for every number of threads on all CPUs.
  static void SetUpTestSuite() { torch::set_num_threads(1); }
  void TearDown() override { fs::remove_all(folder_); }
  void run(const std::string& worker, int size) {
    for (const Ended& ended : Workers(worker, folder_).run(size)) {
      EXPECT_EQ(ended.code, 0) << ended.errors;
    }
  }
  Tensors result(int rank) const { return read(folder_ / ("rank" + std::to_string(rank))); }

  fs::path folder_ = fs::temp_directory_path() / ("trit-distributed-" + std::to_string(getpid()));
};

TEST_F(Distributed, Collectives) {
  run("collectives", 3);
  for (int rank = 0; rank < 3; ++rank) {
    const Tensors found = result(rank);
    EXPECT_TRUE(found.at("sum").eq(6).all().item<bool>());
    EXPECT_TRUE(found.at("first").eq(7).all().item<bool>());
    EXPECT_TRUE(torch::equal(found.at("all"), torch::tensor({0, 0, 1, 1, 2, 2}, torch::kFloat)));
    EXPECT_EQ(found.at("part").item<double>(), 6.0 * rank);
    EXPECT_EQ(found.at("one").item<double>(), 6.0 * rank);
    EXPECT_EQ(found.at("other").item<double>(), 9.0 * rank);
  }
}

TEST_F(Distributed, GradientsAreThoseOfTheWholeBatch) {
  run("gradients", 2);
  const Tensors first = result(0);
  expect_equal(result(1), first);
  Net net = seeded_net();
  for (const auto& [name, tensor] : parameters_of(*net)) {
    EXPECT_TRUE(torch::equal(first.at(name), tensor)) << name;
  }
  EXPECT_EQ(first.at("seen").item<double>(), 5.0);
  backward(net, 2, 0, 1);
  for (const auto& [name, whole] : gradients_of(*net)) {
    EXPECT_TRUE(torch::allclose(first.at("gradient." + name), whole, 1e-5, 1e-7)) << name;
  }
  // The halves' gradients, added and halved, are the same to the bit.
  net->zero_grad();
  backward(net, 2, 0, 2);
  backward(net, 2, 1, 2);
  for (const auto& [name, sum] : gradients_of(*net)) {
    EXPECT_TRUE(torch::equal(first.at("gradient." + name), sum / 2)) << name;
  }
  // ... and so are sums over quarters that each process made by itself.
  std::vector<Tensors> halves;
  for (std::int64_t half = 0; half < 2; ++half) {
    net->zero_grad();
    backward(net, 3, 2 * half, 4);
    backward(net, 3, 2 * half + 1, 4);
    halves.push_back(gradients_of(*net));
  }
  for (const auto& [name, half] : halves[0]) {
    EXPECT_TRUE(torch::equal(first.at("accumulated." + name), (half + halves[1].at(name)) / 2)) << name;
  }
}

/// Each process' gradient is rounded to bfloat16, and so is the sum; the mean is float32.
TEST_F(Distributed, GradientsThatAreSummedInBfloat16) {
  run("bfloat16", 2);
  const Tensors first = result(0);
  expect_equal(result(1), first);
  Net net = seeded_net();
  const Tensors before = parameters_of(*net);
  for (std::int64_t step = 0; step < 2; ++step) {
    std::vector<Tensors> halves;
    for (std::int64_t half = 0; half < 2; ++half) {
      net->zero_grad();
      backward(net, step, half, 2);
      halves.push_back(gradients_of(*net));
    }
    for (const auto& [name, half] : halves[0]) {
      const Tensor sum = half.to(torch::kBFloat16) + halves[1].at(name).to(torch::kBFloat16);
      const Tensor mean = sum.to(torch::kFloat) / 2;
      EXPECT_TRUE(torch::equal(first.at("gradient" + std::to_string(step) + "." + name), mean)) << name;
      EXPECT_FALSE(torch::equal(mean, (half + halves[1].at(name)) / 2))
          << name << ": the rounding is not seen";
      if (step == 0) {
        EXPECT_TRUE(torch::equal(first.at("parameter." + name), before.at(name) - mean)) << name;
      }
    }
  }
  const ProcessGroup group({}, torch::kCPU);
  const auto half = distributed::DataParallelOptions().gradient_type(torch::kHalf);
  EXPECT_THROW(DataParallel<Net>(net, group, half), c10::Error);
  for (const auto& sharded : {distributed::ShardedOptimizerOptions().gradient_type(torch::kDouble),
                              distributed::ShardedOptimizerOptions().bucket_bytes(0)}) {
    EXPECT_THROW(ShardedOptimizer(
                     *net, group, [](const auto& shard) { return adamw(shard.values()); }, sharded),
                 c10::Error);
  }
}

TEST_F(Distributed, ShardedOptimizerGivesTheSameParameters) {
  Net net = seeded_net();
  const auto optimizer = adamw(net->parameters());
  train_alone(net, *optimizer, 0, 10, 2);
  run("sharded", 2);
  for (int rank = 0; rank < 2; ++rank) {
    Tensors found = result(rank);
    const Tensor traffic = found.at("traffic");
    found.erase("traffic");
    expect_nearly_equal(found, parameters_of(*net), 0.9);
    const auto count = [&](std::int64_t i) { return traffic[i].item<std::int64_t>(); };
    // fc1 [64, 46]: 32 rows of 12 bytes, 46 being no multiple of 4; fc2 [10, 64]: 5 rows of 16 bytes and a
    // scale each. fc1's scale takes 8 bytes.
    EXPECT_EQ(count(0), 32 * 12 + 5 * 16);
    EXPECT_EQ(count(1), 8 + 5 * 4);
    EXPECT_EQ(count(2), 4 * (23 * 32 + 23 + 32 + 23 + 32));
    EXPECT_EQ(count(3), 2 * (32 * 46 + 5 * 64));
  }
}

TEST_F(Distributed, GradientsSummedInTheBackwardGiveTheSameBits) {
  run("reduce_in_backward", 2);
  for (const char* const name : {"0float", "1float", "0bfloat16", "1bfloat16"}) {
    expect_equal(read(folder_ / ("in_backward" + std::string(name))),
                 read(folder_ / ("in_step" + std::string(name))));
  }
}

TEST_F(Distributed, GradientsThatAreSummedAreFinal) { run("gradients_are_final", 2); }

TEST_F(Distributed, ALayerThatOneProcessUses) {
  torch::manual_seed(1);
  Branch net;
  const auto optimizer = adamw(net->parameters());
  for (std::int64_t step = 0; step < 3; ++step) {
    optimizer->zero_grad();
    for (const std::int64_t half : {0, 1}) {
      net->used = half == 0;
      backward(net, step, half, 2);
    }
    const torch::NoGradGuard no_grad;
    for (const Tensor& parameter : net->parameters()) {
      parameter.grad().div_(2);
    }
    optimizer->step();
  }
  run("branch", 2);
  expect_equal(result(1), result(0));
  expect_nearly_equal(result(0), parameters_of(*net), 0.9);
}

TEST_F(Distributed, AModuleThatIsRegisteredTwiceHasOneBlock) {
  torch::manual_seed(1);
  Twice net;
  const auto optimizer = adamw(net->first->parameters());
  train_alone(net, *optimizer, 0, 3, 2);
  run("twice", 2);
  expect_equal(result(1), result(0));
  expect_nearly_equal(result(0), parameters_of(*net), 0.9);
}

TEST_F(Distributed, ShardedStateResumesWithAnotherNumberOfProcesses) {
  run("sharded", 2);
  run("resharded", 2);
  const Tensors wanted = read(folder_ / "resumed2");
  run("resharded", 1);
  run("resharded", 3);                                 // parameters whose rows are no multiple of 3
  for (const char* name : {"resumed1", "resumed3"}) {  // sums of gradients in another order
    expect_nearly_equal(read(folder_ / name), wanted, 0.25);
  }
  // The same number of processes as a run that was not interrupted.
  Net net = seeded_net();
  const auto optimizer = adamw(net->parameters());
  train_alone(net, *optimizer, 0, 15, 2);
  expect_nearly_equal(wanted, parameters_of(*net), 0.9);
}

TEST_F(Distributed, ProcessesThatDisagreeSaySo) {
  Workers sizes("joins", folder_);
  sizes.start(0, 2);
  sizes.start(1, 3);
  auto ended = sizes.wait();
  EXPECT_NE(ended[0].code, 0);
  EXPECT_NE(ended[1].code, 0);
  const std::string errors = ended[0].errors + ended[1].errors;
  EXPECT_TRUE(errors.find("WORLD_SIZE: found 3, wanted 2") != std::string::npos ||
              errors.find("WORLD_SIZE: found 2, wanted 3") != std::string::npos)
      << errors;

  Workers ranks("joins", folder_);
  ranks.start(0, 3);
  ranks.start(1, 3);
  ranks.start(1, 3);
  ended = ranks.wait();
  EXPECT_NE((ended[1].errors + ended[2].errors).find("RANK: found 1 in two processes"), std::string::npos)
      << ended[1].errors << ended[2].errors;
}

TEST_F(Distributed, ANewConnectionThatIsClosedIsMadeAgain) {
  for (const auto lost : {Forwarder::Lost::request, Forwarder::Lost::reply}) {
    Workers workers("collectives", folder_);
    const Forwarder forwarder(workers.port(), lost);
    workers.start(0, 2);
    workers.start(1, 2, {{"MASTER_PORT", std::to_string(forwarder.port())}});
    for (const Ended& ended : workers.wait()) {
      EXPECT_EQ(ended.code, 0) << ended.errors;
    }
    EXPECT_EQ(forwarder.closed(), 1);
  }
}

TEST_F(Distributed, AMissingProcessEndsTheWait) {
  Workers workers("joins", folder_);
  workers.start(0, 2);
  const auto ended = workers.wait();
  EXPECT_EQ(ended[0].code, 1);
  EXPECT_NE(ended[0].errors.find("rank 0 of 2: the processes did not meet within 3 s"), std::string::npos)
      << ended[0].errors;
  EXPECT_LT(ended[0].seconds, 20);
}

TEST_F(Distributed, AKilledProcessEndsTheOthers) {
  const auto ended = Workers("is_killed", folder_).run(3);
  EXPECT_EQ(ended[1].code, -SIGKILL);
  for (const int other : {0, 2}) {
    EXPECT_EQ(ended[static_cast<std::size_t>(other)].code, 1);
    EXPECT_LT(ended[static_cast<std::size_t>(other)].seconds, 60);
    EXPECT_FALSE(ended[static_cast<std::size_t>(other)].errors.empty());
  }
}

TEST(DistributedEnvironment, NamesVariableFoundAndWanted) {
  using Variables = std::map<std::string, std::string>;
  const Variables good{
      {"RANK", "1"}, {"WORLD_SIZE", "4"}, {"MASTER_ADDR", "localhost"}, {"MASTER_PORT", "29400"}};
  const auto error_with = [&](const Variables& changed) {
    Variables all = changed;
    all.merge(Variables(good));
    std::vector<std::unique_ptr<EnvironmentVariable>> set;
    for (const auto& [name, value] : all) {
      set.push_back(std::make_unique<EnvironmentVariable>(name.c_str(), value.c_str()));
    }
    try {
      distributed::environment();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(error_with({}), "");
  const std::vector<std::pair<Variables, std::string>> cases{
      {{{"RANK", "4"}}, "RANK: found '4', wanted a whole number from 0 to 3 (WORLD_SIZE is 4)"},
      {{{"RANK", "-1"}}, "RANK: found '-1', wanted a whole number from 0 to 3 (WORLD_SIZE is 4)"},
      {{{"WORLD_SIZE", "0"}}, "WORLD_SIZE: found '0', wanted a whole number from 1 to 65536"},
      {{{"WORLD_SIZE", "two"}}, "WORLD_SIZE: found 'two', wanted a whole number from 1 to 65536"},
      {{{"WORLD_SIZE", "4x"}}, "WORLD_SIZE: found '4x', wanted a whole number from 1 to 65536"},
      {{{"MASTER_PORT", "70000"}}, "MASTER_PORT: found '70000', wanted a whole number from 1 to 65535"},
      {{{"LOCAL_WORLD_SIZE", "5"}},
       "LOCAL_WORLD_SIZE: found '5', wanted a whole number from 1 to 4 (WORLD_SIZE is 4)"},
      {{{"LOCAL_WORLD_SIZE", "2"}, {"LOCAL_RANK", "2"}},
       "LOCAL_RANK: found '2', wanted a whole number from 0 to 1 (LOCAL_WORLD_SIZE is 2)"},
      {{{"MASTER_ADDR", ""}},
       "MASTER_ADDR is not set: start the processes with torchrun, or set RANK, WORLD_SIZE, MASTER_ADDR and "
       "MASTER_PORT for each"}};
  for (const auto& [changed, message] : cases) {
    EXPECT_EQ(error_with(changed), message);
  }
}

TEST(DistributedEnvironment, ANewPackedWeightReplacesTheFloatOne) {
  nn::BitLinear layer = nn::BitLinear(nn::BitLinearOptions(12, 6));
  nn::BitLinear other = nn::BitLinear(nn::BitLinearOptions(12, 6).bias(false));
  const torch::NoGradGuard no_grad;
  layer->bias.zero_();
  const Tensor x = torch::randn({5, 12});
  const Tensor before = layer(x);
  const Tensor scale = torch_layer::ops::absmean(other->weight, false);
  layer->use_packed(torch_layer::ops::ternarize_pack(other->weight, scale), scale);
  EXPECT_TRUE(torch::equal(layer(x), other(x)));
  EXPECT_THROW(layer->use_packed(torch::zeros({5, 3}, torch::kByte), scale), c10::Error);
  layer->options.lambda(0.5);
  EXPECT_THROW(layer(x), c10::Error);
  layer->options.lambda(1);
  layer->use_packed({}, {});
  EXPECT_TRUE(torch::equal(layer(x), before));
}

}  // namespace
}  // namespace trit::test

int main(int argc, char** argv) {
  if (argc == 4 && std::string(argv[1]) == "--worker") {
    try {
      trit::test::run_worker(argv[2], argv[3]);
      return 0;
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
      std::fflush(stderr);
      _exit(1);
    }
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
