// SPDX-License-Identifier: MIT
#include "train_cifar10/processes.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "train_cifar10/learner.h"
#include "trit/error.h"

namespace trit::train {
namespace {

/// One GPU for each process of this host.
torch::Device device_of(const TrainOptions& options, const distributed::Environment& environment) {
  const torch::Device device = device_from_name(options.device);
  if (!device.is_cuda() || environment.world_size == 1) return device;
  if (device.has_index()) {
    throw Error(
        fmt::format("--device {}: one GPU for {} processes; wanted cuda, with which each takes its own",
                    options.device, environment.world_size));
  }
  const int gpus = static_cast<unsigned char>(torch::cuda::device_count());
  if (environment.local_world_size > gpus) {
    throw Error(fmt::format(
        "LOCAL_WORLD_SIZE: found {} processes, wanted at most {}, the GPUs of this machine; or --device cpu",
        environment.local_world_size, gpus));
  }
  return {torch::kCUDA, static_cast<c10::DeviceIndex>(environment.local_rank)};
}

}  // namespace

static_assert(std::chrono::duration<double>(kDefaultTimeout) == distributed::kTimeout);

Processes::Processes(const TrainOptions& options) : device_(torch::kCPU) {
  const bool launched = distributed::is_launched();
  const distributed::Environment environment =
      launched ? distributed::environment() : distributed::Environment{};
  device_ = device_of(options, environment);
  if (options.batch_size < environment.world_size && !options.resume) {
    throw Error(fmt::format("WORLD_SIZE: found {}, wanted at most {}, the images of a batch (--batch-size)",
                            environment.world_size, options.batch_size));
  }
  if (environment.world_size == 1) return;
  if (options.threads == 0 && std::getenv("OMP_NUM_THREADS") == nullptr) {
    at::set_num_threads(std::max(1, at::get_num_threads() / environment.local_world_size));
  }
  const std::chrono::duration<double> timeout(options.timeout);
  group_ = std::make_unique<distributed::ProcessGroup>(
      environment, device_, std::chrono::duration_cast<std::chrono::milliseconds>(timeout));
}

void Processes::sum(std::span<double> values) const {
  if (!several()) return;
  group_->all_reduce(
      torch::from_blob(values.data(), {static_cast<std::int64_t>(values.size())}, torch::kDouble));
}

void Processes::sum(std::span<std::uint8_t> values) const {
  if (!several()) return;
  group_->all_reduce(
      torch::from_blob(values.data(), {static_cast<std::int64_t>(values.size())}, torch::kByte));
}

bool Processes::any(bool value) const {
  double count[] = {value ? 1.0 : 0.0};
  sum(count);
  return count[0] > 0;
}

std::string Processes::from_first(const std::function<std::string()>& work) const {
  if (!several()) return work();
  std::string result;
  std::exception_ptr failure;
  if (first()) {
    try {
      result = "1" + work();
    } catch (...) {
      failure = std::current_exception();
      result = "0";
    }
  }
  result = group_->broadcast(result);
  if (failure) std::rethrow_exception(failure);
  if (result.front() == '0') throw FirstProcessStopped();
  return result.substr(1);
}

}  // namespace trit::train
