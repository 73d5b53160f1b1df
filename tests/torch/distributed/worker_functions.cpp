// SPDX-License-Identifier: MIT
//
// What the processes of a group do, one function for each kind of process. Each gets the folder of its case.
#include "torch/distributed/worker_functions.h"

#include <signal.h>

#include <chrono>
#include <functional>
#include <map>
#include <optional>

#include "torch/distributed/named_tensors.h"
#include "torch/distributed/training.h"
#include "trit/distributed.h"
#include "trit/error.h"

namespace trit::test {
namespace {

namespace fs = std::filesystem;
using distributed::DataParallel;
using distributed::ProcessGroup;
using distributed::ShardedOptimizer;
using torch::Tensor;

constexpr std::chrono::milliseconds kShort{20'000};

template <typename Model>
void train_sharded(Model& net, ShardedOptimizer& optimizer, const ProcessGroup& group, std::int64_t first,
                   std::int64_t last) {
  for (std::int64_t step = first; step < last; ++step) {
    optimizer.zero_grad();
    backward(net, step, group.rank(), group.size());
    optimizer.step();
  }
}

template <typename Model>
ShardedOptimizer sharded_adamw(Model& net, const ProcessGroup& group,
                               torch::ScalarType gradients = torch::kFloat) {
  return {
      *net, group, [](const ShardedOptimizer::Shard& shard) { return adamw(shard.values()); },
      distributed::ShardedOptimizerOptions().bucket_bytes(4096).gradient_type(gradients)};  // several buckets
}

ProcessGroup group_of_environment(std::chrono::milliseconds timeout = kShort) {
  return {distributed::environment(), torch::kCPU, timeout};
}

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
  const Tensor ranks = torch::arange(group.size()).to(torch::kFloat);
  group.reduce_scatter(part, ranks * (rank + 1));
  Tensor one = torch::empty({1});
  Tensor other = torch::empty({1});
  const auto finish_one = group.begin_reduce_scatter(one, ranks * (rank + 1));
  const auto finish_other = group.begin_reduce_scatter(other, ranks * (rank + 2));
  finish_one();
  finish_other();
  const std::string text = group.broadcast(group.rank() == 0 ? "from the first" : "");
  const std::string nothing = group.broadcast(std::string());
  group.barrier();
  TORCH_CHECK(text == "from the first" && nothing.empty(), text);
  write(folder / ("rank" + std::to_string(group.rank())),
        {{"sum", sum}, {"first", first}, {"all", all}, {"part", part}, {"one", one}, {"other", other}});
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

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

/// Parameters after ten steps, and one that adds two halves up, whose gradients the last backward or step() sums.
Tensors trained(bool in_backward, torch::ScalarType gradients) {
  const ProcessGroup group = group_of_environment();
  Net net = seeded_net();
  ShardedOptimizer optimizer = sharded_adamw(net, group, gradients);
  optimizer.reduce_in_backward(in_backward);
  train_sharded(net, optimizer, group, 0, 10);
  optimizer.zero_grad();
  for (std::int64_t part = 0; part < 2; ++part) {
    optimizer.reduce_in_backward(in_backward && part == 1);
    backward(net, 10, 2 * group.rank() + part, 2 * group.size());
  }
  optimizer.step();
  optimizer.gather_weights();
  return parameters_of(*net);
}

void worker_reduce_in_backward(const fs::path& folder) {
  const std::string rank = distributed::environment().rank == 0 ? "0" : "1";
  for (const torch::ScalarType type : {torch::kFloat, torch::kBFloat16}) {
    const std::string name = rank + (type == torch::kFloat ? "float" : "bfloat16");
    write(folder / ("in_backward" + name), trained(true, type));
    write(folder / ("in_step" + name), trained(false, type));
  }
}

/// What may not happen between a backward that sums gradients and step().
void worker_gradients_are_final(const fs::path& /*folder*/) {
  const ProcessGroup group = group_of_environment();
  Net net = seeded_net();
  const auto expect_error = [&](const char* text, const std::function<void()>& between) {
    ShardedOptimizer optimizer = sharded_adamw(net, group);
    optimizer.reduce_in_backward(true);
    backward(net, 0, group.rank(), group.size());
    const std::string error = error_of([&] {
      between();
      optimizer.step();
    });
    TORCH_CHECK(error.find(text) != std::string::npos, "wanted '", text, "', found '", error, "'");
    optimizer.zero_grad();
    backward(net, 1, group.rank(), group.size());
    optimizer.step();
    optimizer.gather_weights();
  };
  Tensor& weight = net->fc1->weight;
  const char* const changed = "the gradient of 'fc1.weight' has changed";
  expect_error("a second gradient of 'fc", [&] { backward(net, 0, group.rank(), group.size()); });
  expect_error(changed, [&] { weight.mutable_grad().mul_(2); });
  expect_error(changed, [&] { weight.mutable_grad() = weight.grad() * 2; });
  expect_error(changed, [&] { weight.mutable_grad().reset(); });
  backward(net, 2, group.rank(), group.size());  // no hook is left
}

void worker_branch(const fs::path& folder) {
  const ProcessGroup group = group_of_environment();
  torch::manual_seed(1);
  Branch net;
  net->used = group.rank() == 0;
  ShardedOptimizer optimizer = sharded_adamw(net, group);
  optimizer.reduce_in_backward(true);
  backward(net, 7, group.rank(), group.size());  // train_sharded's zero_grad leaves it out
  train_sharded(net, optimizer, group, 0, 3);
  optimizer.gather_weights();
  write(folder / ("rank" + std::to_string(group.rank())), parameters_of(*net));
}

void worker_twice(const fs::path& folder) {
  const ProcessGroup group = group_of_environment();
  torch::manual_seed(1);
  Twice net;
  ShardedOptimizer optimizer = sharded_adamw(net, group);
  optimizer.reduce_in_backward(true);
  train_sharded(net, optimizer, group, 0, 3);
  optimizer.gather_weights();
  write(folder / ("rank" + std::to_string(group.rank())), parameters_of(*net));
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
    {"collectives", worker_collectives},
    {"gradients", worker_gradients},
    {"sharded", worker_sharded},
    {"resharded", worker_resharded},
    {"joins", worker_joins},
    {"is_killed", worker_is_killed},
    {"bfloat16", worker_bfloat16},
    {"reduce_in_backward", worker_reduce_in_backward},
    {"gradients_are_final", worker_gradients_are_final},
    {"branch", worker_branch},
    {"twice", worker_twice}};

}  // namespace

void run_worker(const std::string& name, const fs::path& folder) { kWorkers.at(name)(folder); }

}  // namespace trit::test
