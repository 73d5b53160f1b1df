// SPDX-License-Identifier: MIT
#include "torch/distributed/gradient_buckets.h"

#include <torch/csrc/autograd/function_hook.h>

#include <algorithm>

#include "torch/distributed/process_group.h"
#include "trit/error.h"

namespace trit::distributed {
namespace {

using torch::Tensor;

/// The block's gradients for the processes, [P, elements of a block], where they lie in memory as that.
Tensor gradient_in_place(const Block& block, int processes, torch::ScalarType type) {
  const Tensor gradient = block.parameter.grad();
  const bool usable = gradient.defined() && gradient.scalar_type() == type && gradient.is_contiguous() &&
                      block.rows == processes * block.sizes[0];
  return usable ? gradient.view({processes, block.elements()}) : Tensor();
}

/// The same into `to`, zeros where there is no gradient.
void copy_gradient(const Tensor& to, const Block& block, int processes) {
  const Tensor gradient = block.parameter.grad();
  if (gradient.defined()) {
    to.copy_(block.with_padding(gradient, processes).reshape({processes, block.elements()}));
  } else {
    to.zero_();
  }
}

}  // namespace

/// Called when autograd has accumulated a parameter's gradient.
class GradientBuckets::Hook final : public torch::autograd::PostAccumulateGradHook {
 public:
  Hook(GradientBuckets& buckets, std::size_t block) : buckets_(buckets), block_(block) {}
  void operator()(const torch::autograd::Variable& /*parameter*/) override { buckets_.given(block_); }
  bool is_of(const GradientBuckets& buckets) const { return &buckets == &buckets_; }

 private:
  GradientBuckets& buckets_;
  std::size_t block_;
};

GradientBuckets::GradientBuckets(const ProcessGroup& group, const ShardedOptimizerOptions& options,
                                 std::vector<Block>& blocks)
    : group_(group), options_(options), blocks_(blocks) {
  // Bytes of an element in all processes.
  const auto bytes = static_cast<std::int64_t>(c10::elementSize(options.gradient_type())) * group.size();
  std::reverse(blocks_.begin(), blocks_.end());
  std::stable_partition(blocks_.begin(), blocks_.end(), [&](const Block& block) {
    return block.elements() * bytes >= options.bucket_bytes();
  });
  for (std::size_t first = 0; first < blocks_.size();) {
    Bucket bucket{.first = first,
                  .last = first,
                  .elements = 0,
                  .waits_for = 0,
                  .mine = {},
                  .sums = {},
                  .sent = {},
                  .finish = {}};
    // Blocks without elements never make a bucket of their own.
    while (bucket.last < blocks_.size() &&
           (bucket.elements * bytes < options.bucket_bytes() || blocks_[bucket.last].elements() == 0)) {
      bucket.elements += blocks_[bucket.last++].elements();
    }
    first = bucket.last;
    bucket_of_.resize(first, buckets_.size());
    buckets_.push_back(std::move(bucket));
  }
  restart();
}

GradientBuckets::~GradientBuckets() { remove_hooks(); }

void GradientBuckets::remove_hooks() {
  for (const Block& block : blocks_) {
    const auto* const hook =
        dynamic_cast<const Hook*>(torch::autograd::impl::post_acc_grad_hooks(block.parameter).get());
    if (hook != nullptr && hook->is_of(*this)) {
      torch::autograd::impl::set_post_acc_grad_hooks(block.parameter, nullptr);
    }
  }
}

void GradientBuckets::reduce_in_backward(bool on) {
  remove_hooks();
  if (!on) {
    return;
  }
  for (const Block& block : blocks_) {
    TORCH_CHECK(!torch::autograd::impl::post_acc_grad_hooks(block.parameter),
                "trit::distributed::ShardedOptimizer: '", block.name,
                "' has a hook after its gradient already, of another ShardedOptimizer?");
  }
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    torch::autograd::impl::set_post_acc_grad_hooks(blocks_[i].parameter, std::make_unique<Hook>(*this, i));
  }
}

void GradientBuckets::restart() {
  next_ = 0;
  given_.assign(blocks_.size(), false);
  for (Bucket& bucket : buckets_) {
    bucket.waits_for = bucket.last - bucket.first;
    bucket.mine = Tensor();
    bucket.sums = Tensor();
    bucket.sent.clear();
    bucket.finish = {};
  }
}

void GradientBuckets::given(std::size_t block) {
  if (given_[block]) {
    throw Error("trit::distributed::ShardedOptimizer: a second gradient of '" + blocks_[block].name +
                "' before step(), wanted one backward, or reduce_in_backward(false) in all but the last");
  }
  given_[block] = true;
  --buckets_[bucket_of_[block]].waits_for;
  const torch::NoGradGuard no_grad;
  for (; next_ < buckets_.size() && buckets_[next_].waits_for == 0; ++next_) {
    Bucket& full = buckets_[next_];
    begin(full);
    for (std::size_t i = full.first; i < full.last; ++i) {
      const Tensor& gradient = blocks_[i].parameter.grad();
      full.sent.push_back({gradient, gradient._version()});
    }
  }
}

Tensor GradientBuckets::filled(const Bucket& bucket) const {
  const int processes = group_.size();
  Tensor all;
  if (bucket.last == bucket.first + 1) {
    all = gradient_in_place(blocks_[bucket.first], processes, options_.gradient_type());
  }
  if (!all.defined()) {
    all = torch::empty({processes, bucket.elements},
                       torch::dtype(options_.gradient_type()).device(group_.device()));
    std::int64_t at = 0;
    for (std::size_t i = bucket.first; i < bucket.last; ++i) {
      copy_gradient(all.narrow(1, at, blocks_[i].elements()), blocks_[i], processes);
      at += blocks_[i].elements();
    }
  }
  return all.view({-1});  // Gloo wants as many dimensions as the result has
}

void GradientBuckets::begin(Bucket& bucket) {
  const auto type = torch::dtype(options_.gradient_type()).device(group_.device());
  bucket.mine = torch::empty({bucket.elements}, type.dtype(torch::kFloat));
  bucket.sums =
      options_.gradient_type() == torch::kFloat ? bucket.mine : torch::empty({bucket.elements}, type);
  bucket.finish = group_.begin_reduce_scatter(bucket.sums, filled(bucket));
}

void GradientBuckets::check_unchanged(const Bucket& bucket) const {
  for (std::size_t i = 0; i < bucket.sent.size(); ++i) {
    const Block& block = blocks_[bucket.first + i];
    const auto& [gradient, version] = bucket.sent[i];
    if (!gradient.is_same(block.parameter.grad()) || gradient._version() != version) {
      throw Error(
          "trit::distributed::ShardedOptimizer: the gradient of '" + block.name +
          "' has changed since the backward that summed it; reduce_in_backward(false) sums in step()");
    }
  }
}

void GradientBuckets::begin_the_rest() {
  const torch::NoGradGuard no_grad;
  for (; next_ < buckets_.size(); ++next_) {
    begin(buckets_[next_]);
  }
}

void GradientBuckets::finish() {
  begin_the_rest();
  std::for_each(buckets_.begin(), buckets_.end(), [this](const Bucket& bucket) { check_unchanged(bucket); });
  const Tensor divisor = float_divisor(group_.size(), group_.device());
  for (const Bucket& bucket : buckets_) {
    bucket.finish();
    Tensor mean = bucket.mine;
    torch::div_out(mean, bucket.sums, divisor);
    std::int64_t at = 0;
    for (std::size_t i = bucket.first; i < bucket.last; ++i) {
      Block& block = blocks_[i];
      block.shard.mutable_grad() = mean.narrow(0, at, block.elements()).view(block.shard.sizes());
      at += block.elements();
    }
  }
  restart();
}

void GradientBuckets::discard() {
  if (std::find(given_.begin(), given_.end(), true) != given_.end()) {
    begin_the_rest();
  }
  for (const Bucket& bucket : buckets_) {
    if (bucket.finish) {
      bucket.finish();
    }
  }
  restart();
}

}  // namespace trit::distributed
