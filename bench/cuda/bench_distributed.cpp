// SPDX-License-Identifier: MIT
//
// Training steps of an MLP of BitLinear layers on several GPUs of one host, forward, backward and AdamW, in
// bfloat16. bench_distributed.py starts it with 1, 2, ... processes and compares.
//
//   torchrun --nproc_per_node 2 --no-python bench_distributed --mode ddp
//
// The first process prints one JSON object: median milliseconds of a step over rounds, the slowest process'
// counts. Modes: `plain` (no communication, for one process), `ddp` (DataParallel: gradients are averaged
// during the backward), `zero` (ShardedOptimizer: after it), `zero_backward` (during it); with `_bfloat16`
// behind it gradients are summed in that type.
#include <c10/cuda/CUDAStream.h>
#include <torch/torch.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/lib/event_timer.h"
#include "bench/lib/program.h"
#include "common/number_options.h"
#include "train_cifar10/adamw.h"
#include "trit/distributed.h"

namespace {

namespace td = trit::distributed;
using torch::Tensor;

struct Shape {
  std::int64_t layers = 8, features = 8192, tokens = 8192;
};

struct MlpImpl : torch::nn::Module {
  explicit MlpImpl(const Shape& shape) {
    for (std::int64_t i = 0; i < shape.layers; ++i) {
      layers->push_back(
          trit::nn::BitLinear(trit::nn::BitLinearOptions(shape.features, shape.features).bias(false)));
    }
  }
  Tensor forward(Tensor x) {
    for (const auto& layer : *layers) {
      x = torch::relu(layer->as<trit::nn::BitLinearImpl>()->forward(x));
    }
    return x;
  }
  torch::nn::ModuleList layers = register_module("layers", torch::nn::ModuleList());
};
TORCH_MODULE(Mlp);

/// The network with what a mode puts around it.
struct Trainer {
  Trainer(const Shape& shape, const td::ProcessGroup& group, const std::string& mode) : net(shape) {
    net->to(group.device());
    const trit::train::AdamWOptions options(1e-4);
    const torch::ScalarType sums = mode.ends_with("_bfloat16") ? torch::kBFloat16 : torch::kFloat;
    if (mode.starts_with("zero")) {
      sharded.emplace(
          *net, group,
          [&](const td::ShardedOptimizer::Shard& shard) {
            return std::make_unique<trit::train::AdamW>(shard, options);
          },
          td::ShardedOptimizerOptions().gradient_type(sums));
      sharded->reduce_in_backward(mode.starts_with("zero_backward"));
      return;
    }
    if (mode.starts_with("ddp")) {
      reducer.emplace(*net, group,
                      td::DataParallelOptions().gradient_type(sums).gradient_as_bucket_view(true));
    }
    whole = std::make_unique<trit::train::AdamW>(net->named_parameters(), options);
  }

  void step(const Tensor& x, const Tensor& grad_y) {
    for (const Tensor& parameter : net->parameters()) {  // Module::zero_grad refuses views of buckets
      parameter.mutable_grad().reset();
    }
    if (reducer) {
      reducer->before_forward();
    }
    const Tensor y = net(x);
    if (reducer) {
      reducer->before_backward({y});
    }
    y.backward(grad_y);
    if (sharded) {
      sharded->step();
    } else {
      whole->step();
    }
  }

  Mlp net;
  std::optional<td::GradientReducer> reducer;
  std::optional<td::ShardedOptimizer> sharded;
  std::unique_ptr<trit::train::AdamW> whole;
};

double milliseconds(Trainer& trainer, const Tensor& x, const Tensor& grad_y, int steps) {
  const trit::bench::EventTimer timer(c10::cuda::getCurrentCUDAStream().stream());
  return timer.milliseconds([&] {
    for (int i = 0; i < steps; ++i) {
      trainer.step(x, grad_y);
    }
  }) / steps;
}

void measure(const Shape& shape, const std::string& mode, int rounds, int steps) {
  const td::Environment environment = td::is_launched() ? td::environment() : td::Environment{};
  const torch::Device device(torch::kCUDA, static_cast<c10::DeviceIndex>(environment.local_rank));
  const td::ProcessGroup group(environment, device);
  torch::manual_seed(static_cast<std::uint64_t>(environment.rank));
  const auto options = torch::device(device).dtype(torch::kBFloat16);
  const Tensor x = torch::randn({shape.tokens, shape.features}, options);
  const Tensor grad_y = torch::randn({shape.tokens, shape.features}, options) * 1e-3;
  Trainer trainer(shape, group, mode);
  milliseconds(trainer, x, grad_y, steps);  // buckets, workspaces, clocks
  milliseconds(trainer, x, grad_y, steps);
  std::vector<double> times;
  for (int round = 0; round < rounds; ++round) {
    group.barrier();
    Tensor all = torch::empty({group.size()}, torch::kDouble);
    group.all_gather(all, torch::full({1}, milliseconds(trainer, x, grad_y, steps), torch::kDouble));
    times.push_back(all.max().item<double>());
  }
  std::sort(times.begin(), times.end());
  if (group.rank() == 0) {
    std::printf(
        "{\"mode\": \"%s\", \"processes\": %d, \"layers\": %lld, \"features\": %lld, \"tokens\": %lld, "
        "\"step_ms\": %.3f, \"step_ms_least\": %.3f, \"step_ms_most\": %.3f",
        mode.c_str(), group.size(), static_cast<long long>(shape.layers),
        static_cast<long long>(shape.features), static_cast<long long>(shape.tokens), times[times.size() / 2],
        times.front(), times.back());
    if (trainer.sharded) {
      const auto& traffic = trainer.sharded->traffic();
      std::printf(
          ", \"codes_bytes\": %lld, \"scales_bytes\": %lld, \"floats_bytes\": %lld, "
          "\"codes_as_bfloat16_bytes\": %lld",
          static_cast<long long>(traffic.codes), static_cast<long long>(traffic.scales),
          static_cast<long long>(traffic.floats), static_cast<long long>(traffic.codes_as_bfloat16));
    }
    std::printf("}\n");
    std::fflush(stdout);
  }
  group.barrier();
}

}  // namespace

int trit::bench::run(int argc, char** argv) {
  Shape shape;
  std::string mode = "ddp";
  int rounds = 5;
  int steps = 10;
  trit::bench::CommandLine app{"Times training steps of an MLP of BitLinear layers on several GPUs.",
                               "torchrun --nproc_per_node 2 --no-python bench_distributed --mode zero"};
  app.add_option("--mode", mode, "how gradients are shared")
      ->type_name("MODE")
      ->check(CLI::IsMember({"plain", "ddp", "zero", "zero_backward", "ddp_bfloat16", "zero_bfloat16",
                             "zero_backward_bfloat16"}));
  app.add_option("--layers", shape.layers, "layers")->type_name("N")->check(trit::apps::whole_number(1));
  app.add_option("--features", shape.features, "inputs and outputs of each")
      ->type_name("N")
      ->check(trit::apps::whole_number(1));
  app.add_option("--tokens", shape.tokens, "rows of x in each process")
      ->type_name("N")
      ->check(trit::apps::whole_number(1));
  app.add_option("--rounds", rounds, "timings")->type_name("N")->check(trit::apps::whole_number(1));
  app.add_option("--steps", steps, "steps of a timing")->type_name("N")->check(trit::apps::whole_number(1));
  CLI11_PARSE(app, argc, argv);
  if (!torch::cuda::is_available()) {
    std::printf("skipped: LibTorch finds no GPU here\n");
    return 77;
  }
  measure(shape, mode, rounds, steps);
  return 0;
}
