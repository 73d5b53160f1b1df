// SPDX-License-Identifier: MIT
//
// The only file that knows c10d::Reducer, whose constructor changes between releases of LibTorch. This is
// that of 2.11.
#include <torch/csrc/distributed/c10d/comm.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include <algorithm>
#include <unordered_map>

#include "torch/distributed/process_group.h"

namespace trit::distributed {
namespace {

constexpr std::size_t kBroadcastBytes = std::size_t{250} << 20;

struct Named {
  std::vector<torch::Tensor> parameters;
  std::unordered_map<std::size_t, std::string> names;
};

Named trained_parameters(const torch::nn::Module& module) {
  Named result;
  for (const auto& item : module.named_parameters()) {
    if (item.value().requires_grad()) {
      result.names[result.parameters.size()] = item.key();
      result.parameters.push_back(item.value());
    }
  }
  TORCH_CHECK(!result.parameters.empty(),
              "trit::distributed::GradientReducer: no parameter of the module has gradients");
  return result;
}

std::unique_ptr<c10d::Reducer> make_reducer(Named named, const ProcessGroup& group,
                                            const DataParallelOptions& options) {
  const std::vector<bool> dense(named.parameters.size(), false);
  const auto bytes = static_cast<std::size_t>(options.bucket_bytes());
  // The first bucket is small: it is full early, and the reduction begins early.
  const std::size_t first = std::min<std::size_t>(bytes, c10d::kDefaultFirstBucketBytes);
  auto buckets =
      std::get<0>(c10d::compute_bucket_assignment_by_size(named.parameters, {first, bytes}, dense));
  // A backward has the gradients of the last layers first.
  std::reverse(buckets.begin(), buckets.end());
  return std::make_unique<c10d::Reducer>(
      std::move(named.parameters), std::move(buckets), group.impl().group, dense,
      static_cast<std::int64_t>(bytes), options.find_unused_parameters(), options.gradient_as_bucket_view(),
      std::move(named.names), static_cast<std::int64_t>(first), /*skip_all_reduce_unused_params=*/false,
      /*use_python_reducer=*/false, /*bucket_bytes_cap_list=*/std::vector<std::int64_t>{});
}

/// The mean of a bucket over the processes, summed as bfloat16.
class BFloat16Hook final : public c10d::CppCommHookInterface<c10::intrusive_ptr<c10d::ProcessGroup>> {
 public:
  using CppCommHookInterface::CppCommHookInterface;

  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    std::vector<torch::Tensor> sums{bucket.getBufferRef().to(torch::kBFloat16)};
    const auto reduced = state_->allreduce(sums)->getFuture();
    return reduced->then(
        [mean = bucket.getBufferRef(), processes = state_->getSize()](c10::ivalue::Future& sum) {
          torch::Tensor result = mean;
          return c10::IValue(torch::div_out(result, sum.value().toTensorVector()[0],
                                            float_divisor(processes, mean.device())));
        },
        reduced->elementType());
  }
};

}  // namespace

torch::Tensor float_divisor(int processes, torch::Device device) {
  return torch::full({1}, processes, torch::dtype(torch::kFloat).device(device));
}

void check_gradient_type(const char* who, torch::ScalarType type) {
  TORCH_CHECK(type == torch::kFloat || type == torch::kBFloat16, who, ": gradient_type is ", type,
              ", wanted torch::kFloat or torch::kBFloat16");
}

void broadcast_module(const torch::nn::Module& module, const ProcessGroup& group) {
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> tensors;
  for (const auto& list : {module.parameters(), module.buffers()}) {
    for (const torch::Tensor& tensor : list) {
      tensors.push_back(tensor.detach());
    }
  }
  if (tensors.empty()) {
    return;
  }
  c10d::verify_params_across_processes(group.impl().group, tensors, {});
  c10d::broadcast_coalesced(group.impl().group, tensors, kBroadcastBytes);
}

struct GradientReducer::Impl {
  std::unique_ptr<c10d::Reducer> reducer;
  bool paused = false;
  bool reduces() const { return torch::GradMode::is_enabled() && !paused; }
};

GradientReducer::GradientReducer(torch::nn::Module& module, const ProcessGroup& group,
                                 const DataParallelOptions& options)
    : impl_(std::make_unique<Impl>()) {
  TORCH_CHECK(options.bucket_bytes() >= 1,
              "trit::distributed::GradientReducer: wanted bucket_bytes >= 1, found ", options.bucket_bytes());
  check_gradient_type("trit::distributed::GradientReducer", options.gradient_type());
  broadcast_module(module, group);
  impl_->reducer = make_reducer(trained_parameters(module), group, options);
  if (options.gradient_type() == torch::kBFloat16) {
    impl_->reducer->register_comm_hook(std::make_unique<BFloat16Hook>(group.impl().group));
  }
}
GradientReducer::~GradientReducer() = default;
GradientReducer::GradientReducer(GradientReducer&&) noexcept = default;
GradientReducer& GradientReducer::operator=(GradientReducer&&) noexcept = default;

void GradientReducer::before_forward() {
  if (impl_->reduces()) {
    impl_->reducer->prepare_for_forward();
  }
  // Once, after the first backward: buckets in the order in which gradients came.
  if (torch::GradMode::is_enabled()) {
    impl_->reducer->rebuild_buckets();
  }
}

void GradientReducer::before_backward(const std::vector<torch::Tensor>& outputs) {
  if (impl_->reduces()) {
    impl_->reducer->prepare_for_backward(outputs);
  }
}

NoSync::NoSync(GradientReducer& reducer) : paused_(reducer.impl_->paused), before_(paused_) {
  paused_ = true;
}
NoSync::~NoSync() { paused_ = before_; }

}  // namespace trit::distributed
