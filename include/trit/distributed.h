// SPDX-License-Identifier: MIT
//
// Training on several processes, one a GPU or a share of the CPU's cores, started by torchrun or by anything
// that sets its variables (docs/distributed.md). Part of trit::torch.
//
//   const trit::distributed::ProcessGroup group(trit::distributed::environment(), torch::kCPU);
//   trit::distributed::DataParallel net(Net(), group);          // rank 0's parameters and buffers, everywhere
//   loss(net(my_part_of_the_batch)).backward();                 // gradients: means over the processes
//   optimizer.step();
//
// Every function that says "collective" is called by all processes, in the same order. A collective that
// fails, because a process has ended or has not answered for the group's timeout, throws trit::Error or
// c10::Error; the group is of no use after that.
#pragma once

#include <torch/torch.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "trit/torch.h"

namespace trit::distributed {

/// What torchrun tells a process.
struct Environment {
  int rank = 0, world_size = 1;              // RANK, WORLD_SIZE
  int local_rank = 0, local_world_size = 1;  // LOCAL_RANK, LOCAL_WORLD_SIZE: on this host
  std::string master_address = "127.0.0.1";  // MASTER_ADDR
  std::uint16_t master_port = 29500;         // MASTER_PORT
  bool agent_store = false;  // TORCHELASTIC_USE_AGENT_STORE: torchrun hosts the store, not rank 0
  int restart = 0;           // TORCHELASTIC_RESTART_COUNT
};
/// Whether RANK or WORLD_SIZE is set.
bool is_launched();
/// The variables above. RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT must be set; LOCAL_RANK and
/// LOCAL_WORLD_SIZE default to RANK and WORLD_SIZE (one host). Throws trit::Error that names the variable,
/// what was found and what was wanted.
Environment environment();

/// How long a process waits for the others before it gives up.
inline constexpr std::chrono::milliseconds kTimeout{30'000};

/// The processes of a run. A copy refers to the same group.
class ProcessGroup {
 public:
  /// Collective. `device`: that of this process' tensors: a CPU (Gloo), or a GPU with its index (NCCL for
  /// its tensors, Gloo for those of the CPU), which becomes the current one. Throws trit::Error if the
  /// processes do not find each other within the timeout, disagree on WORLD_SIZE, or share a RANK.
  ProcessGroup(const Environment& environment, torch::Device device,
               std::chrono::milliseconds timeout = kTimeout);

  int rank() const;
  int size() const;
  torch::Device device() const;
  std::chrono::milliseconds timeout() const;

  // Collectives on contiguous tensors of the CPU or of device(). On a GPU they are queued on the current
  // stream; on a CPU they have happened when the call returns.
  /// tensor = sum over the processes.
  void all_reduce(torch::Tensor tensor) const;
  /// tensor = that of rank 0.
  void broadcast(torch::Tensor tensor) const;
  /// all [size() * n] = the parts [n] of the processes, by rank.
  void all_gather(torch::Tensor all, torch::Tensor part) const;
  /// part [n] = sum over the processes of their all[rank() * n, (rank() + 1) * n).
  void reduce_scatter(torch::Tensor part, torch::Tensor all) const;
  /// Begins reduce_scatter and returns a function that finishes it. After a call of that, once, the sums are in `part`
  /// (on a GPU for what is queued on the current stream from then on); before it, neither tensor may be used. Either call
  /// may throw trit::Error.
  [[nodiscard]] std::function<void()> begin_reduce_scatter(torch::Tensor part, torch::Tensor all) const;
  /// The text of rank 0.
  std::string broadcast(const std::string& text) const;
  /// Returns when all processes have called it.
  void barrier() const;

  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  std::shared_ptr<Impl> impl_;
};

/// Collective. Parameters and buffers of rank 0's module, into those of the others. Throws c10::Error if
/// their number, shapes or types differ.
void broadcast_module(const torch::nn::Module& module, const ProcessGroup& group);

struct DataParallelOptions {
  /// Gradients are reduced in buckets of at least so many bytes, as soon as a backward has them.
  TORCH_ARG(std::int64_t, bucket_bytes) = std::int64_t{25} << 20;
  /// For modules that do not use all parameters in each forward.
  TORCH_ARG(bool, find_unused_parameters) = false;
  /// Gradients are views of the buckets, which saves a copy. Optimizer::zero_grad of LibTorch detaches gradients
  /// in place, which throws for a view, even where it sets them to none: reset them one by one then.
  TORCH_ARG(bool, gradient_as_bucket_view) = false;
  /// The type in which gradients are sent and summed: kFloat, or kBFloat16 for half the bytes. Each process'
  /// gradient, and the sum, is then rounded to 8 significant bits.
  TORCH_ARG(torch::ScalarType, gradient_type) = torch::kFloat;
};

/// Averages a module's gradients over the processes while a backward computes them (c10d::Reducer).
/// DataParallel calls it; a module whose forward is called elsewhere needs it by itself.
class GradientReducer {
 public:
  /// Collective. Broadcasts the module's parameters and buffers. Parameters that are added later are not
  /// seen.
  GradientReducer(torch::nn::Module& module, const ProcessGroup& group,
                  const DataParallelOptions& options = {});
  ~GradientReducer();
  GradientReducer(GradientReducer&&) noexcept;
  GradientReducer& operator=(GradientReducer&&) noexcept;

  /// Before a forward, and between it and its backward. `outputs` are looked at with find_unused_parameters.
  void before_forward();
  void before_backward(const std::vector<torch::Tensor>& outputs);

 private:
  friend class NoSync;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// While one exists, forward and backward leave gradients where they are: they add up in each process, and
/// the next pass without one averages the sums.
///
///   for (std::size_t i = 0; i < parts.size(); ++i) {
///     std::optional<trit::distributed::NoSync> no_sync;
///     if (i + 1 < parts.size()) no_sync.emplace(net.reducer());
///     loss(net(parts[i])).backward();
///   }
class NoSync {
 public:
  explicit NoSync(GradientReducer& reducer);
  ~NoSync();
  NoSync(const NoSync&) = delete;
  NoSync& operator=(const NoSync&) = delete;

 private:
  bool& paused_;
  bool before_;
};

/// A module, held as torch::nn::ModuleHolder holds it, whose backward averages gradients over the
/// processes: each process calls it with its part of the batch. With parts of equal size and a mean loss
/// the gradients are those of the whole batch.
template <typename Holder>
class DataParallel {
 public:
  /// Collective.
  DataParallel(Holder module, const ProcessGroup& group, const DataParallelOptions& options = {})
      : module_(std::move(module)), reducer_(*module_, group, options) {}

  /// The module's forward, which must return a tensor.
  template <typename... Arguments>
  torch::Tensor operator()(Arguments&&... arguments) {
    reducer_.before_forward();
    torch::Tensor output = module_->forward(std::forward<Arguments>(arguments)...);
    reducer_.before_backward({output});
    return output;
  }

  Holder& module() { return module_; }
  GradientReducer& reducer() { return reducer_; }

 private:
  Holder module_;
  GradientReducer reducer_;
};

struct ShardedOptimizerOptions {
  /// Gradients are summed in buckets of whole parameters, each of at least so many bytes over all processes' rows (the
  /// last may be smaller): one is under way while the next is filled. The same in every process.
  TORCH_ARG(std::int64_t, bucket_bytes) = std::int64_t{25} << 20;
  /// As in DataParallelOptions; the optimizer gets float32.
  TORCH_ARG(torch::ScalarType, gradient_type) = torch::kFloat;
};

/// An optimizer whose state and float32 parameters are divided among the processes (ZeRO-1,
/// arXiv:1910.02054): gradients are reduced to the process that owns their rows, which updates these, and
/// the results are gathered. The weights of BitLinear layers (lambda = 1, a scale per tensor or row) are
/// gathered as 2-bit codes: a sixteenth of float32's bytes.
///
///   trit::distributed::ShardedOptimizer optimizer(*net, group, [](const auto& shard) {
///     return std::make_unique<torch::optim::AdamW>(shard.values(), torch::optim::AdamWOptions(1e-3));
///   });
///   loss(net(my_part_of_the_batch)).backward();
///   optimizer.step();
///
/// Every parameter is cut into size() blocks of equally many rows (elements, if it has one dimension), the
/// last filled up with zeros; the optimizer inside must treat elements alike, as LibTorch's do except
/// LBFGS. Between steps such a layer has its codes and scale alone (the same bits as from the whole
/// weight), and `weight` is a NaN of that shape which takes no memory: call gather_weights() before
/// anything that reads it. Gradients that have added up over several backwards are averaged once, by
/// step().
class ShardedOptimizer {
 public:
  using Shard = torch::OrderedDict<std::string, torch::Tensor>;
  /// Makes the optimizer of this process' shard: rows of the module's parameters, float32, by their names.
  using Factory = std::function<std::unique_ptr<torch::optim::Optimizer>(const Shard& shard)>;

  /// Collective. Broadcasts the module's parameters and buffers, which must be on the group's device.
  /// `module` must outlive it. Not for steps inside a CUDA graph.
  ShardedOptimizer(torch::nn::Module& module, const ProcessGroup& group, const Factory& factory,
                   const ShardedOptimizerOptions& options = {});
  ~ShardedOptimizer();
  ShardedOptimizer(ShardedOptimizer&&) noexcept;
  ShardedOptimizer& operator=(ShardedOptimizer&&) noexcept;

  /// Collective: averages the module's gradients, updates, gathers. An undefined gradient counts as zeros.
  void step();
  /// Sets whether backward() begins to sum gradients as soon as it has those of a bucket, so that sums are under
  /// way while it computes the next ones; off at first. Gradients must then be final when a backward ends. Where
  /// several backwards of a step add gradients up, switch it on before the last. Where processes get gradients of
  /// different parameters, call no other collective of the group between backward() and step(). Throws c10::Error
  /// for a parameter with another hook of that kind; later trit::Error: backward() in a second backward of a step,
  /// step() for a gradient that was changed after its backward.
  void reduce_in_backward(bool on);
  /// Sets the module's gradients to none. Collective after a backward with reduce_in_backward(true).
  void zero_grad();
  /// That of the shard: for learning rates.
  torch::optim::Optimizer& optimizer();

  /// Collective. The module's weights as floats again, until the next step(): to save or export it.
  void gather_weights();

  /// Collective. Whole tensors on the CPU, whatever the number of processes: "parameter.<name>" float32, and
  /// "state.<name>.<key>" of LibTorch's optimizers, a number as a tensor [].
  std::map<std::string, torch::Tensor> state_dict();
  /// Collective. What state_dict() returned in a run of any number of processes. Throws trit::Error that
  /// names the tensor for one that is missing or has another shape.
  void load_state_dict(const std::map<std::string, torch::Tensor>& state);

  /// Bytes that this process gives to the others in the gather of one step, to each of them.
  struct Traffic {
    std::int64_t codes = 0;              // of ternary layers
    std::int64_t scales = 0;             // of ternary layers
    std::int64_t floats = 0;             // of all other parameters
    std::int64_t codes_as_bfloat16 = 0;  // what `codes` would be with 16 bits a weight
  };
  const Traffic& traffic() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace trit::distributed
