// SPDX-License-Identifier: MIT
//
// The store in which the processes meet, the backends, and the collectives.
#include "torch/distributed/process_group.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#ifdef USE_C10D_NCCL
#include <c10/cuda/CUDAFunctions.h>

#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include <algorithm>
#include <chrono>
#include <random>

#include "trit/error.h"

namespace trit::distributed {
namespace {

using Backend = c10d::ProcessGroup::BackendType;

std::string text_of(const std::vector<std::uint8_t>& bytes) { return {bytes.begin(), bytes.end()}; }
std::vector<std::uint8_t> bytes_of(const std::string& text) { return {text.begin(), text.end()}; }

std::string seconds(std::chrono::milliseconds time) {
  std::string text = std::to_string(static_cast<double>(time.count()) / 1000);
  text.erase(text.find_last_not_of('0') + 1);
  return (text.back() == '.' ? text.substr(0, text.size() - 1) : text) + " s";
}

// An error of c10d, without its stack trace.
std::string reason(const std::exception& error) {
  const auto* const torch_error = dynamic_cast<const c10::Error*>(&error);
  const std::string text = torch_error != nullptr ? torch_error->what_without_backtrace() : error.what();
  return text.substr(0, text.find('\n'));
}

std::string who(int rank, int size) { return "rank " + std::to_string(rank) + " of " + std::to_string(size); }

// Under torchrun the store is that of its agent.
bool has_store(const Environment& environment) { return environment.rank == 0 && !environment.agent_store; }

c10::intrusive_ptr<c10d::Store> connect(const Environment& environment, std::chrono::milliseconds timeout) {
  c10d::TCPStoreOptions options;
  options.port = environment.master_port;
  options.isServer = has_store(environment);
  options.waitWorkers = false;
  options.timeout = timeout;
  try {
    // torchrun may start the processes several times, and its store outlives them.
    return c10::make_intrusive<c10d::PrefixStore>(
        "trit/" + std::to_string(environment.restart),
        c10::make_intrusive<c10d::TCPStore>(environment.master_address, options));
  } catch (const std::exception& error) {
    throw Error(who(environment.rank, environment.world_size) + ": cannot " +
                (options.isServer ? "listen on" : "reach") + " MASTER_ADDR " + environment.master_address +
                ", MASTER_PORT " + std::to_string(environment.master_port) + " within " + seconds(timeout) +
                ": " + reason(error));
  }
}

std::string random_name() {
  std::random_device random;
  return std::to_string(random()) + "-" + std::to_string(random());
}

// Without this, processes that disagree would wait for each other until the timeout. `name`: one of this process alone.
// May be called again.
void check_agreement(c10d::Store& store, const Environment& environment, const std::string& name) {
  if (text_of(store.compareSet("rank/" + std::to_string(environment.rank), {}, bytes_of(name))) != name) {
    throw Error("RANK: found " + std::to_string(environment.rank) + " in two processes");
  }
  const std::string size = std::to_string(environment.world_size);
  const std::string first = text_of(store.compareSet("world_size", {}, bytes_of(size)));
  if (first != size) {
    throw Error("WORLD_SIZE: found " + size + ", wanted " + first + " as in another process");
  }
}

/// The store, in which all agree. Under load LibTorch 2.11's store has closed a new connection at its first request: the
/// process then connects again, unless it has the store itself.
c10::intrusive_ptr<c10d::Store> meet(const Environment& environment, std::chrono::milliseconds timeout) {
  constexpr int kAttempts = 3;
  const auto end = std::chrono::steady_clock::now() + timeout;
  const std::string name = random_name();
  for (int attempt = 1;; ++attempt) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    const auto store = connect(environment, std::max(left, std::chrono::milliseconds(1)));
    try {
      check_agreement(*store, environment, name);
      store->setTimeout(timeout);
      return store;
    } catch (const c10::DistNetworkError& error) {
      if (has_store(environment) || attempt == kAttempts) {
        throw Error(who(environment.rank, environment.world_size) + ": MASTER_ADDR " +
                    environment.master_address + ", MASTER_PORT " + std::to_string(environment.master_port) +
                    " does not answer: " + reason(error));
      }
    }
  }
}

/// Calls `part` of a collective; its exceptions name the process.
template <typename Part>
auto guarded(const ProcessGroup& group, const char* name, const Part& part) {
  try {
    return part();
  } catch (const std::exception& error) {
    throw Error(who(group.rank(), group.size()) + ": " + name +
                " failed: another process has ended, or has not answered for " + seconds(group.timeout()) +
                " (" + reason(error) + ")");
  }
}

template <typename Collective>
void run(const ProcessGroup& group, const char* name, const Collective& collective) {
  guarded(group, name, [&] { collective()->wait(); });
}

}  // namespace

ProcessGroup::ProcessGroup(const Environment& environment, torch::Device device,
                           std::chrono::milliseconds timeout)
    : impl_(std::make_shared<Impl>(Impl{.group = {}, .device = device, .timeout = timeout})) {
  const int rank = environment.rank;
  const int size = environment.world_size;
  TORCH_CHECK(device.is_cpu() || (device.is_cuda() && device.has_index()),
              "trit::distributed::ProcessGroup: wanted the CPU or a GPU with its index, found ", device);
#ifndef USE_C10D_NCCL
  TORCH_CHECK(device.is_cpu(), "trit: this build has no NCCL (TRIT_CUDA, and nccl.h)");
#endif
  const auto store = meet(environment, timeout);
  try {
    impl_->group = c10::make_intrusive<c10d::ProcessGroup>(store, rank, size);
    impl_->group->setGroupName("trit");
    impl_->group->setBackend(torch::kCPU, Backend::GLOO,
                             c10::make_intrusive<c10d::ProcessGroupGloo>(
                                 c10::make_intrusive<c10d::PrefixStore>("gloo", store), rank, size,
                                 c10d::ProcessGroupGloo::Options::create_default(timeout)));
    impl_->group->setDefaultBackend(Backend::GLOO);
#ifdef USE_C10D_NCCL
    if (device.is_cuda()) {
      c10::cuda::set_device(device.index());
      auto options = c10d::ProcessGroupNCCL::Options::create();
      options->timeout = timeout;
      options->group_name = "trit";
      auto nccl = c10::make_intrusive<c10d::ProcessGroupNCCL>(
          c10::make_intrusive<c10d::PrefixStore>("nccl", store), rank, size, std::move(options));
      impl_->group->setBoundDeviceId(device);
      impl_->group->setBackend(torch::kCUDA, Backend::NCCL, nccl);
      impl_->group->setDefaultBackend(Backend::NCCL);
      nccl->setSequenceNumberForGroup();
    }
#endif
  } catch (const std::exception& error) {
    throw Error(who(rank, size) + ": the processes did not meet within " + seconds(timeout) +
                ": are as many started as WORLD_SIZE says? (" + reason(error) + ")");
  }
}

ProcessGroup::Impl::~Impl() {
#ifdef USE_C10D_NCCL
  if (group && device.is_cuda()) {
    try {
      group->getBackend(torch::kCUDA)->shutdown();
    } catch (const std::exception& error) {
      TORCH_WARN("trit::distributed::ProcessGroup: ", error.what());
    }
  }
#endif
}

int ProcessGroup::rank() const { return impl_->group->getRank(); }
int ProcessGroup::size() const { return impl_->group->getSize(); }
torch::Device ProcessGroup::device() const { return impl_->device; }
std::chrono::milliseconds ProcessGroup::timeout() const { return impl_->timeout; }

void ProcessGroup::all_reduce(torch::Tensor tensor) const {
  std::vector<torch::Tensor> tensors{std::move(tensor)};
  run(*this, "all_reduce", [&] { return impl_->group->allreduce(tensors); });
}

void ProcessGroup::broadcast(torch::Tensor tensor) const {
  std::vector<torch::Tensor> tensors{std::move(tensor)};
  run(*this, "broadcast", [&] { return impl_->group->broadcast(tensors); });
}

void ProcessGroup::all_gather(torch::Tensor all, torch::Tensor part) const {
  run(*this, "all_gather", [&] { return impl_->group->_allgather_base(all, part); });
}

void ProcessGroup::reduce_scatter(torch::Tensor part, torch::Tensor all) const {
  begin_reduce_scatter(std::move(part), std::move(all))();
}

std::function<void()> ProcessGroup::begin_reduce_scatter(torch::Tensor part, torch::Tensor all) const {
  constexpr const char* kName = "reduce_scatter";
  const auto work = guarded(*this, kName, [&] { return impl_->group->_reduce_scatter_base(part, all); });
  // The tensors live as long as what is returned.
  return [group = *this, work, part = std::move(part), all = std::move(all)] {
    guarded(group, kName, [&] { work->wait(); });
  };
}

std::string ProcessGroup::broadcast(const std::string& text) const {
  torch::Tensor length = torch::tensor({static_cast<std::int64_t>(text.size())}, torch::kInt64);
  broadcast(length);
  torch::Tensor bytes = torch::empty({length.item<std::int64_t>()}, torch::kUInt8);
  if (rank() == 0) {
    std::copy(text.begin(), text.end(), bytes.mutable_data_ptr<std::uint8_t>());
  }
  if (bytes.numel() > 0) {
    broadcast(bytes);
  }
  const auto* const begin = bytes.const_data_ptr<std::uint8_t>();
  return {begin, begin + bytes.numel()};
}

void ProcessGroup::barrier() const { all_reduce(torch::zeros({1})); }

}  // namespace trit::distributed
