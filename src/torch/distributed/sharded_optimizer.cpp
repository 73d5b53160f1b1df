// SPDX-License-Identifier: MIT
//
// ZeRO-1. With P processes, a parameter of R rows is cut into P blocks of ceil(R / P) rows; rows that are
// missing from the last are zeros, so that all processes have the same shapes.
//
//   gradients    in buckets of blocks (gradient_buckets.h) -> reduce_scatter -> those of the shard
//   update       by the optimizer that the factory made
//   scale        per tensor: sum of |w| of each layer's block, fp64 -> all_gather -> beta. The fp64 sum of fp32
//                row sums is exact (they would have to differ by 2^16 to round), so its order does not matter
//                and beta has the bits of ops::absmean of the whole weight.
//   weights      bytes [codes and row scales of ternary layers, values of the others] -> all_gather
#include <limits>
#include <set>

#include "torch/distributed/gradient_buckets.h"
#include "torch/distributed/optimizer_state.h"
#include "torch/distributed/process_group.h"
#include "torch/distributed/row_sums.h"
#include "torch/ops.h"
#include "trit/error.h"

namespace trit::distributed {
namespace {

using torch::Tensor;

constexpr std::int64_t kAlignment = 16;

std::int64_t rounded_up(std::int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

std::vector<std::int64_t> block_sizes(const Tensor& parameter, int processes) {
  std::vector<std::int64_t> sizes =
      parameter.dim() == 0 ? std::vector<std::int64_t>{1} : parameter.sizes().vec();
  sizes[0] = (sizes[0] + processes - 1) / processes;
  return sizes;
}

const Tensor& find(const std::map<std::string, Tensor>& state, const std::string& key,
                   at::IntArrayRef sizes) {
  const auto found = state.find(key);
  if (found == state.end()) {
    throw Error("trit::distributed::ShardedOptimizer: the state has no tensor '" + key + "'");
  }
  if (found->second.sizes() != sizes) {
    throw Error("trit::distributed::ShardedOptimizer: '" + key + "' is " + c10::str(found->second.sizes()) +
                " in the state, wanted " + c10::str(sizes));
  }
  return found->second;
}

}  // namespace

struct ShardedOptimizer::Impl {
  Impl(ProcessGroup processes, const ShardedOptimizerOptions& of)
      : group(std::move(processes)), options(of) {}

  ProcessGroup group;
  ShardedOptimizerOptions options;
  std::vector<Block> blocks;
  std::unique_ptr<GradientBuckets> gradients;
  std::unique_ptr<torch::optim::Optimizer> optimizer;
  Traffic traffic;
  std::vector<double> host_counts;  // of weights in the layers with a scale per tensor
  Tensor device_counts;

  /// Optimizer::zero_grad detaches in place, which a view of the reduced gradients refuses.
  void clear_gradients();
  Tensor tensor_scales(const std::vector<const Block*>& layers);
  void gather(bool codes);
  Tensor gather_block(const Block& block, const Tensor& part);
};

namespace {

// Whether the parameter has memory for its values, and is not one value expanded.
bool has_memory(const Tensor& parameter) { return parameter.is_non_overlapping_and_dense(); }

void set_float_weight(Block& block) {
  if (block.layer) {
    block.layer->use_packed({}, {});
  }
  if (!has_memory(block.parameter)) {
    block.parameter.set_data(torch::empty(block.parameter.sizes(), block.parameter.options()));
  }
}

void set_codes(Block& block, const Tensor& codes, const Tensor& scale) {
  block.layer->use_packed(codes, scale);
  if (has_memory(block.parameter)) {
    const Tensor nan = torch::full({1}, std::numeric_limits<double>::quiet_NaN(), block.parameter.options());
    block.parameter.set_data(nan.expand(block.parameter.sizes()));
  }
}

}  // namespace

void ShardedOptimizer::Impl::clear_gradients() {
  for (Block& block : blocks) {
    block.shard.mutable_grad().reset();
  }
}

Tensor ShardedOptimizer::Impl::tensor_scales(const std::vector<const Block*>& layers) {
  std::vector<Tensor> sums;
  std::vector<double> counts;
  for (const Block* const block : layers) {
    sums.push_back(torch_layer::abs_row_sums(block->shard).sum(torch::kFloat64));
    counts.push_back(static_cast<double>(block->parameter.numel()));
  }
  const auto count = static_cast<std::int64_t>(layers.size());
  const Tensor mine = torch::stack(sums);
  const Tensor all = torch::empty({group.size() * count}, mine.options());
  group.all_gather(all, mine);
  traffic.scales += static_cast<std::int64_t>(mine.nbytes());
  if (counts != host_counts) {  // a GPU's host would wait for the copy at each step
    host_counts = counts;
    device_counts = torch::tensor(counts, torch::kFloat64).to(group.device());
  }
  const Tensor mean = (all.view({group.size(), count}).sum(0) / device_counts).to(torch::kFloat);
  return torch::where(mean < 1e-5F, torch::full_like(mean, 1e-5F), mean);  // a NaN passes (docs/numerics.md)
}

void ShardedOptimizer::Impl::gather(bool codes) {
  const int processes = group.size();
  traffic = {};
  std::vector<const Block*> with_tensor_scale;
  for (const Block& block : blocks) {
    if (codes && block.as_codes() && !block.per_row()) {
      with_tensor_scale.push_back(&block);
    }
  }
  Tensor scales = with_tensor_scale.empty() ? Tensor() : tensor_scales(with_tensor_scale);

  // What this process gives: for each block its bytes, in order, each at a multiple of kAlignment.
  struct Part {
    Tensor bytes;  // uint8
    Tensor scale;  // per tensor
    std::int64_t at = 0;
  };
  std::vector<Part> parts;
  std::int64_t total = 0;
  std::int64_t next_scale = 0;
  const auto add = [&](const Tensor& values, const Tensor& scale = {}) {
    parts.push_back({values.contiguous().flatten().view(torch::kUInt8), scale, total});
    total += rounded_up(parts.back().bytes.numel());
    return parts.back().bytes.numel();
  };
  for (Block& block : blocks) {
    if (!codes || !block.as_codes()) {
      traffic.floats += add(block.shard.detach().to(block.parameter.scalar_type()));
      continue;
    }
    const Tensor scale = block.per_row() ? torch_layer::ops::absmean(block.shard.detach(), /*per_row=*/true)
                                         : scales.narrow(0, next_scale++, 1);
    traffic.codes += add(torch_layer::ops::ternarize_pack(block.shard.detach(), scale), scale);
    traffic.codes_as_bfloat16 += 2 * block.elements();
    if (block.per_row()) {
      traffic.scales += add(scale);
    }
  }
  const Tensor mine = torch::zeros({total}, torch::dtype(torch::kUInt8).device(group.device()));
  for (const Part& part : parts) {
    mine.narrow(0, part.at, part.bytes.numel()).copy_(part.bytes);
  }
  const Tensor all = torch::empty({processes * total}, mine.options());
  group.all_gather(all, mine);

  auto part = parts.begin();
  const auto take = [&](torch::ScalarType type, std::vector<std::int64_t> sizes) {
    sizes[0] *= processes;
    const Tensor bytes = all.view({processes, total}).narrow(1, part->at, part->bytes.numel()).contiguous();
    ++part;
    return bytes.flatten().view(type).view(sizes);
  };
  for (Block& block : blocks) {
    if (!codes || !block.as_codes()) {
      set_float_weight(block);
      block.parameter.detach().copy_(block.without_padding(take(block.parameter.scalar_type(), block.sizes)));
      continue;
    }
    const Tensor scale = part->scale;
    const Tensor all_codes = take(torch::kUInt8, {block.sizes[0], packed_row_bytes(block.sizes[1])});
    const Tensor row_scales = block.per_row() ? take(torch::kFloat, {block.sizes[0]}) : Tensor();
    set_codes(block, all_codes.narrow(0, 0, block.rows),
              block.per_row() ? row_scales.narrow(0, 0, block.rows) : scale);
  }
}

Tensor ShardedOptimizer::Impl::gather_block(const Block& block, const Tensor& part) {
  const Tensor mine = part.detach().to(group.device()).contiguous();
  const Tensor all = torch::empty({group.size() * mine.numel()}, mine.options());
  group.all_gather(all, mine.flatten());
  std::vector<std::int64_t> sizes = block.sizes;
  sizes[0] *= group.size();
  return block.without_padding(all.view(sizes)).cpu().clone();
}

ShardedOptimizer::ShardedOptimizer(torch::nn::Module& module, const ProcessGroup& group,
                                   const Factory& factory, const ShardedOptimizerOptions& options)
    : impl_(std::make_unique<Impl>(group, options)) {
  const torch::NoGradGuard no_grad;
  check_gradient_type("trit::distributed::ShardedOptimizer", options.gradient_type());
  TORCH_CHECK(options.bucket_bytes() >= 1,
              "trit::distributed::ShardedOptimizer: wanted bucket_bytes >= 1, found ",
              options.bucket_bytes());
  broadcast_module(module, group);
  std::map<const void*, std::shared_ptr<nn::BitLinearImpl>> layers;
  for (const auto& part : module.modules()) {
    if (auto layer = std::dynamic_pointer_cast<nn::BitLinearImpl>(part)) {
      layers[layer->weight.unsafeGetTensorImpl()] = layer;
    }
  }
  Shard shard;
  std::set<const void*> seen;
  for (const auto& item : module.named_parameters()) {
    const Tensor& parameter = item.value();
    // A module that is registered twice has its parameters under both names.
    if (!parameter.requires_grad() || !seen.insert(parameter.unsafeGetTensorImpl()).second) {
      continue;
    }
    Block block;
    block.name = item.key();
    block.parameter = parameter;
    block.sizes = block_sizes(parameter, group.size());
    block.rows = parameter.dim() == 0 ? 1 : parameter.size(0);
    if (const auto layer = layers.find(parameter.unsafeGetTensorImpl()); layer != layers.end()) {
      block.layer = layer->second;
    }
    block.shard = block.with_padding(parameter.detach().to(torch::kFloat), group.size())
                      .narrow(0, group.rank() * block.sizes[0], block.sizes[0])
                      .clone()
                      .set_requires_grad(true);
    shard.insert(block.name, block.shard);
    impl_->blocks.push_back(std::move(block));
  }
  TORCH_CHECK(!impl_->blocks.empty(),
              "trit::distributed::ShardedOptimizer: no parameter of the module has gradients");
  impl_->gradients = std::make_unique<GradientBuckets>(group, options, impl_->blocks);
  {
    const torch::AutoGradMode with_gradients(true);
    impl_->optimizer = factory(shard);
  }
  impl_->gather(/*codes=*/true);
}
ShardedOptimizer::~ShardedOptimizer() = default;
ShardedOptimizer::ShardedOptimizer(ShardedOptimizer&&) noexcept = default;
ShardedOptimizer& ShardedOptimizer::operator=(ShardedOptimizer&&) noexcept = default;

void ShardedOptimizer::step() {
  const torch::NoGradGuard no_grad;
  impl_->gradients->finish();
  impl_->optimizer->step();
  impl_->clear_gradients();
  impl_->gather(/*codes=*/true);
}

void ShardedOptimizer::reduce_in_backward(bool on) { impl_->gradients->reduce_in_backward(on); }

void ShardedOptimizer::zero_grad() {
  impl_->gradients->discard();
  for (Block& block : impl_->blocks) {
    block.parameter.mutable_grad().reset();
  }
}

torch::optim::Optimizer& ShardedOptimizer::optimizer() { return *impl_->optimizer; }
const ShardedOptimizer::Traffic& ShardedOptimizer::traffic() const { return impl_->traffic; }

void ShardedOptimizer::gather_weights() {
  const torch::NoGradGuard no_grad;
  const Traffic of_the_step = impl_->traffic;
  impl_->gather(/*codes=*/false);
  impl_->traffic = of_the_step;
}

std::map<std::string, Tensor> ShardedOptimizer::state_dict() {
  const torch::NoGradGuard no_grad;
  std::map<std::string, Tensor> result;
  for (const Block& block : impl_->blocks) {
    result["parameter." + block.name] = impl_->gather_block(block, block.shard);
    for (const auto& [key, value] : state_of(*impl_->optimizer, block.shard)) {
      result["state." + block.name + "." + key] =
          value.dim() == 0 ? value : impl_->gather_block(block, value);
    }
  }
  return result;
}

void ShardedOptimizer::load_state_dict(const std::map<std::string, Tensor>& state) {
  const torch::NoGradGuard no_grad;
  const ProcessGroup& group = impl_->group;
  const auto mine = [&](const Block& block, const Tensor& whole) {
    return block.with_padding(whole.to(torch::kFloat), group.size())
        .narrow(0, group.rank() * block.sizes[0], block.sizes[0])
        .to(group.device());
  };
  // A step makes the optimizer's state, of whatever class. All that it changes is overwritten.
  for (Block& block : impl_->blocks) {
    block.shard.mutable_grad() = torch::zeros_like(block.shard);
  }
  impl_->optimizer->step();
  impl_->clear_gradients();
  for (Block& block : impl_->blocks) {
    const auto sizes = block.parameter.sizes();
    block.shard.copy_(mine(block, find(state, "parameter." + block.name, sizes)));
    std::map<std::string, Tensor> own;
    for (const auto& [key, value] : state_of(*impl_->optimizer, block.shard)) {
      const std::string name = "state." + block.name + "." + key;
      own[key] = value.dim() == 0 ? find(state, name, {}) : mine(block, find(state, name, sizes));
    }
    set_state(*impl_->optimizer, block.shard, own);
  }
  impl_->gather(/*codes=*/true);
}

}  // namespace trit::distributed
