// SPDX-License-Identifier: MIT
//
// Groups of processes on the CPU (Gloo): gradients, the sharded optimizer, and what goes wrong. Each case
// starts this program several times as workers, which leave their results in a folder.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <optional>

#include "child_process.h"
#include "environment_variable.h"
#include "torch/distributed/launch.h"
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
using Tensors = std::map<std::string, Tensor>;

constexpr std::int64_t kInputs = 32, kHidden = 46, kClasses = 10, kBatch = 24;
constexpr std::chrono::milliseconds kShort{20'000};

struct NetImpl : torch::nn::Module {
  torch::nn::Linear in = register_module("in", torch::nn::Linear(kInputs, kHidden));
  nn::BitLinear fc1 = register_module("fc1", nn::BitLinear(kHidden, 64));
  nn::BitLinear fc2 = register_module(
      "fc2", nn::BitLinear(nn::BitLinearOptions(64, kClasses).bias(false).scale(ScaleGranularity::row)));
  Tensor seen = register_buffer("seen", torch::zeros({1}));

  Tensor forward(const Tensor& x) { return fc2(torch::relu(fc1(torch::relu(in(x))))); }
};
TORCH_MODULE(Net);

Net seeded_net(std::uint64_t seed = 1) {
  torch::manual_seed(seed);
  return {};
}

/// The batch of a step, the same in every process.
std::pair<Tensor, Tensor> batch_of(std::int64_t step) {
  torch::manual_seed(static_cast<std::uint64_t>(100 + step));
  return {torch::randn({kBatch, kInputs}), torch::randint(kClasses, {kBatch})};
}

/// Backward of part `index` of `count` of a batch.
template <typename Model>
double backward(Model& net, std::int64_t step, std::int64_t index, std::int64_t count) {
  const auto [x, labels] = batch_of(step);
  const std::int64_t images = kBatch / count;
  const Tensor loss = torch::nn::functional::cross_entropy(net(x.narrow(0, index * images, images)),
                                                           labels.narrow(0, index * images, images));
  loss.backward();
  return loss.template item<double>();
}

Tensors parameters_of(const torch::nn::Module& module) {
  Tensors result;
  for (const auto& item : module.named_parameters()) {
    result[item.key()] = item.value().detach().clone();
  }
  return result;
}

Tensors gradients_of(const torch::nn::Module& module) {
  Tensors result;
  for (const auto& item : module.named_parameters()) {
    result[item.key()] = item.value().grad().clone();
  }
  return result;
}

void write(const fs::path& path, const Tensors& tensors) {
  torch::serialize::OutputArchive archive;
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors) {
    archive.write(std::to_string(names.size()), tensor);
    names.push_back(name);
  }
  archive.write("names", torch::IValue(names));
  archive.save_to(path.string());
}

Tensors read(const fs::path& path) {
  torch::serialize::InputArchive archive;
  archive.load_from(path.string());
  torch::IValue names;
  archive.read("names", names);
  Tensors result;
  for (std::size_t i = 0; i < names.toListRef().size(); ++i) {
    archive.read(std::to_string(i), result[names.toListRef()[i].toStringRef()]);
  }
  return result;
}

void expect_equal(const Tensors& found, const Tensors& wanted) {
  ASSERT_EQ(found.size(), wanted.size());
  for (const auto& [name, tensor] : wanted) {
    ASSERT_TRUE(found.contains(name)) << name;
    EXPECT_TRUE(torch::equal(found.at(name), tensor))
        << name << ": largest difference " << (found.at(name) - tensor).abs().max().item<double>();
  }
}

/// As expect_equal, for results of the same formulas in loops of other lengths: the last element of a vector
/// loop may round differently, and a code that flips with it moves its neighbours by a step or two.
void expect_nearly_equal(const Tensors& found, const Tensors& wanted, double equal_share) {
  ASSERT_EQ(found.size(), wanted.size());
  std::int64_t equal = 0;
  std::int64_t all = 0;
  for (const auto& [name, tensor] : wanted) {
    ASSERT_TRUE(found.contains(name)) << name;
    EXPECT_TRUE(torch::allclose(found.at(name), tensor, 0, 2e-2)) << name;
    equal += found.at(name).eq(tensor).sum().item<std::int64_t>();
    all += tensor.numel();
  }
  EXPECT_GE(static_cast<double>(equal), equal_share * static_cast<double>(all));
}

std::unique_ptr<torch::optim::Optimizer> adamw(const std::vector<Tensor>& parameters) {
  return std::make_unique<torch::optim::AdamW>(parameters,
                                               torch::optim::AdamWOptions(1e-2).weight_decay(0.1));
}

/// Steps [first, last) of one process that takes a batch in `count` parts.
void train_alone(Net& net, torch::optim::Optimizer& optimizer, std::int64_t first, std::int64_t last,
                 std::int64_t count) {
  for (std::int64_t step = first; step < last; ++step) {
    optimizer.zero_grad();
    for (std::int64_t part = 0; part < count; ++part) {
      backward(net, step, part, count);
    }
    const torch::NoGradGuard no_grad;
    for (const Tensor& parameter : net->parameters()) {
      parameter.grad().div_(count);
    }
    optimizer.step();
  }
}

void train_sharded(Net& net, ShardedOptimizer& optimizer, const ProcessGroup& group, std::int64_t first,
                   std::int64_t last) {
  for (std::int64_t step = first; step < last; ++step) {
    optimizer.zero_grad();
    backward(net, step, group.rank(), group.size());
    optimizer.step();
  }
}

ShardedOptimizer sharded_adamw(Net& net, const ProcessGroup& group) {
  return {*net, group, [](const ShardedOptimizer::Shard& shard) { return adamw(shard.values()); }};
}

ProcessGroup group_of_environment(std::chrono::milliseconds timeout = kShort) {
  return {distributed::environment(), torch::kCPU, timeout};
}

// ---- The workers. Each gets the folder of its case. ----

void worker_collectives(const fs::path& folder) {
  const ProcessGroup group = group_of_environment();
  const auto rank = static_cast<float>(group.rank());
  Tensor sum = torch::full({3}, rank + 1);
  group.all_reduce(sum);
  Tensor first = torch::full({2}, rank + 7);
  group.broadcast(first);
  Tensor all = torch::empty({group.size() * 2});
  group.all_gather(all, torch::full({2}, rank));
  Tensor part = torch::empty({1});
  group.reduce_scatter(part, torch::arange(group.size()).to(torch::kFloat) * (rank + 1));
  const std::string text = group.broadcast(group.rank() == 0 ? "from the first" : "");
  const std::string nothing = group.broadcast(std::string());
  group.barrier();
  TORCH_CHECK(text == "from the first" && nothing.empty(), text);
  write(folder / ("rank" + std::to_string(group.rank())),
        {{"sum", sum}, {"first", first}, {"all", all}, {"part", part}});
}

void worker_gradients(const fs::path& folder) {
  const ProcessGroup group = group_of_environment();
  const auto seed = static_cast<std::uint64_t>(1 + group.rank());  // the first one's parameters count
  Net net = seeded_net(seed);
  net->seen.fill_(static_cast<double>(group.rank() + 5));
  DataParallel<Net> parallel(net, group);
  Tensors result = parameters_of(*net);
  result["seen"] = net->seen;
  for (std::int64_t step = 0; step < 3; ++step) {  // the buckets are rebuilt after the first
    net->zero_grad();
    backward(parallel, step, group.rank(), group.size());
  }
  for (auto& [name, tensor] : gradients_of(*net)) {
    result["gradient." + name] = tensor;
  }
  net->zero_grad();
  for (std::int64_t part = 0; part < 2; ++part) {  // each process accumulates two quarters of the batch
    std::optional<distributed::NoSync> no_sync;
    if (part == 0) {
      no_sync.emplace(parallel.reducer());
    }
    backward(parallel, 3, 2 * group.rank() + part, 2 * group.size());
  }
  for (auto& [name, tensor] : gradients_of(*net)) {
    result["accumulated." + name] = tensor;
  }
  write(folder / ("rank" + std::to_string(group.rank())), result);
}

void worker_sharded(const fs::path& folder) {
  const ProcessGroup group = group_of_environment();
  Net net = seeded_net(static_cast<std::uint64_t>(1 + group.rank()));
  ShardedOptimizer optimizer = sharded_adamw(net, group);
  train_sharded(net, optimizer, group, 0, 10);
  TORCH_CHECK(
      net->fc1->weight.isnan().all().item<bool>() && net->fc1->weight.storage().nbytes() == sizeof(float),
      "the float weight takes memory");
  const auto traffic = optimizer.traffic();
  const Tensor counts = torch::tensor(
      {traffic.codes, traffic.scales, traffic.floats, traffic.codes_as_bfloat16}, torch::kInt64);
  const torch::NoGradGuard no_grad;
  const Tensor y = net(batch_of(0).first);
  Tensors state = optimizer.state_dict();
  optimizer.gather_weights();
  Tensors result = parameters_of(*net);
  TORCH_CHECK(torch::equal(net(batch_of(0).first), y), "codes and weights give different outputs");
  result["traffic"] = counts;
  write(folder / ("rank" + std::to_string(group.rank())), result);
  if (group.rank() == 0) {
    write(folder / "state", state);
  }
}

void worker_resharded(const fs::path& folder) {
  const ProcessGroup group = group_of_environment();
  Net net = seeded_net(9);
  ShardedOptimizer optimizer = sharded_adamw(net, group);
  optimizer.load_state_dict(read(folder / "state"));
  train_sharded(net, optimizer, group, 10, 15);
  optimizer.gather_weights();
  if (group.rank() == 0) {
    write(folder / ("resumed" + std::to_string(group.size())), parameters_of(*net));
  }
}

/// Gradients of two steps of DataParallel, and parameters after one step of SGD of the sharded optimizer, with
/// a learning rate of 1.
void worker_bfloat16(const fs::path& folder) {
  const ProcessGroup group = group_of_environment();
  Net net = seeded_net();
  DataParallel<Net> parallel(net, group, distributed::DataParallelOptions().gradient_type(torch::kBFloat16));
  Tensors result;
  for (std::int64_t step = 0; step < 2; ++step) {  // the buckets are rebuilt after the first
    net->zero_grad();
    backward(parallel, step, group.rank(), group.size());
    for (const auto& [name, tensor] : gradients_of(*net)) {
      result["gradient" + std::to_string(step) + "." + name] = tensor;
    }
  }
  Net other = seeded_net();
  ShardedOptimizer optimizer(
      *other, group,
      [](const ShardedOptimizer::Shard& shard) {
        return std::make_unique<torch::optim::SGD>(shard.values(), torch::optim::SGDOptions(1));
      },
      distributed::ShardedOptimizerOptions().gradient_type(torch::kBFloat16).bucket_bytes(1));
  backward(other, 0, group.rank(), group.size());
  optimizer.step();
  optimizer.gather_weights();
  for (const auto& [name, tensor] : parameters_of(*other)) {
    result["parameter." + name] = tensor;
  }
  write(folder / ("rank" + std::to_string(group.rank())), result);
}

void worker_joins(const fs::path& /*folder*/) { group_of_environment(std::chrono::milliseconds(3000)); }

void worker_is_killed(const fs::path& /*folder*/) {
  const ProcessGroup group = group_of_environment();
  Net net = seeded_net();
  DataParallel<Net> parallel(net, group);
  for (std::int64_t step = 0;; ++step) {
    if (step == 5 && group.rank() == 1) {
      raise(SIGKILL);
    }
    backward(parallel, step, group.rank(), group.size());
  }
}

const std::map<std::string, std::function<void(const fs::path&)>> kWorkers{
    {"collectives", worker_collectives}, {"gradients", worker_gradients}, {"sharded", worker_sharded},
    {"resharded", worker_resharded},     {"joins", worker_joins},         {"is_killed", worker_is_killed},
    {"bfloat16", worker_bfloat16}};

// ---- The tests. ----

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
  const auto sharded = distributed::ShardedOptimizerOptions().gradient_type(torch::kDouble);
  EXPECT_THROW(ShardedOptimizer(
                   *net, group, [](const auto& shard) { return adamw(shard.values()); }, sharded),
               c10::Error);
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
      trit::test::kWorkers.at(argv[2])(argv[3]);
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
