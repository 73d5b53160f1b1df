// SPDX-License-Identifier: MIT
//
// Trains ternary layers on several processes, with a sharded optimizer: each process computes with its part
// of every batch, keeps a part of the float weights and of the optimizer's state, and gets the others'
// weights as 2-bit codes.
//
//   torchrun --nproc_per_node 2 --no-python train_distributed [OUT.safetensors]
//
// On GPUs where there is one for each process, otherwise on the CPU. Without torchrun it is one process.
#include <trit/distributed.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>

namespace {

namespace td = trit::distributed;

constexpr std::int64_t kClasses = 4, kFeatures = 64, kHidden = 256, kBatch = 128;

struct NetImpl : torch::nn::Module {
  trit::nn::BitLinear fc1 = register_module("fc1", trit::nn::BitLinear(kFeatures, kHidden));
  trit::nn::BitLinear fc2 = register_module("fc2", trit::nn::BitLinear(kHidden, kClasses));

  torch::Tensor forward(const torch::Tensor& x) { return fc2(torch::relu(fc1(x))); }
};
TORCH_MODULE(Net);

torch::Device device_of(const td::Environment& environment) {
  const int gpus = static_cast<unsigned char>(torch::cuda::device_count());
  if (gpus < environment.local_world_size) return torch::kCPU;
  return {torch::kCUDA, static_cast<c10::DeviceIndex>(environment.local_rank)};
}

void train(const char* path) {
  const td::Environment environment = td::is_launched() ? td::environment() : td::Environment{};
  const td::ProcessGroup group(environment, device_of(environment));
  torch::manual_seed(0);
  Net net;
  net->to(group.device());
  td::ShardedOptimizer optimizer(*net, group, [](const td::ShardedOptimizer::Shard& shard) {
    return std::make_unique<torch::optim::AdamW>(shard.values(), torch::optim::AdamWOptions(3e-3));
  });

  const torch::Tensor centres = torch::randn({kClasses, kFeatures});
  const std::int64_t mine = kBatch / group.size();  // of each batch, which all processes draw
  for (int step = 0; step < 200; ++step) {
    torch::Tensor labels = torch::randint(kClasses, {kBatch});
    torch::Tensor x = centres.index({labels}) + torch::randn({kBatch, kFeatures});
    labels = labels.narrow(0, group.rank() * mine, mine).to(group.device());
    x = x.narrow(0, group.rank() * mine, mine).to(group.device());
    optimizer.zero_grad();
    torch::Tensor loss = torch::nn::functional::cross_entropy(net(x), labels);
    loss.backward();
    optimizer.step();
    if (step % 50 == 49) {
      torch::Tensor mean = loss.detach() / group.size();
      group.all_reduce(mean);
      if (group.rank() == 0) std::printf("step %d, loss %.4f\n", step + 1, mean.item<double>());
    }
  }
  const td::ShardedOptimizer::Traffic& traffic = optimizer.traffic();
  optimizer.gather_weights();
  if (group.rank() == 0) {
    trit::nn::save_packed(*net, path);
    std::printf("%s, trained by %d process%s; ternary weights sent per step: %lld bytes, as bfloat16 %lld\n",
                path, group.size(), group.size() == 1 ? "" : "es", static_cast<long long>(traffic.codes),
                static_cast<long long>(traffic.codes_as_bfloat16));
  }
  group.barrier();
}

}  // namespace

int main(int argc, char** argv) {
  try {
    train(argc > 1 ? argv[1] : "distributed.safetensors");
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    std::_Exit(1);  // a group's destructor would wait for processes that may have ended
  }
}
