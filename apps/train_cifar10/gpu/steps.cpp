// SPDX-License-Identifier: MIT
#include "train_cifar10/gpu/steps.h"

#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <cstring>

#include "train_cifar10/batches.h"
#include "train_cifar10/schedule.h"

namespace trit::train::gpu {
namespace {

// cuDNN tries its algorithms and LibTorch makes its workspaces in the first step; the allocator has settled
// by the third.
constexpr int kStepsBeforeCapture = 3;

torch::Tensor to_device(std::int64_t count, torch::ScalarType type, const void* values,
                        torch::Device device) {
  return torch::from_blob(const_cast<void*>(values), {count}, type).to(device);
}

torch::Tensor learning_rates(const TrainOptions& options, std::int64_t images, torch::Device device) {
  const std::int64_t batches = EpochBatches::count(images, options.batch_size);
  std::vector<float> rates(static_cast<std::size_t>(batches * options.epochs));
  for (std::size_t step = 0; step < rates.size(); ++step) {
    rates[step] = static_cast<float>(learning_rate(options, batches, static_cast<std::int64_t>(step)));
  }
  return to_device(static_cast<std::int64_t>(rates.size()), torch::kFloat, rates.data(), device);
}

torch::ScalarType input_type(Precision precision) {
  return precision == Precision::fp32   ? torch::kFloat
         : precision == Precision::bf16 ? torch::kBFloat16
                                        : torch::kHalf;
}

// torch::nn::utils::clip_grad_norm_ without waiting for the norm, which it returns.
torch::Tensor clip_gradients(std::vector<torch::Tensor>& gradients, double largest) {
  const torch::Tensor norm = torch::stack(at::_foreach_norm(gradients)).norm();
  at::_foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp_max(1.0));
  return norm;
}

}  // namespace

Steps::Steps(const TrainOptions& options, Learner& learner, const Images& dataset, std::int64_t images)
    : options_(options),
      learner_(learner),
      dataset_(dataset),
      images_(images),
      stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, dataset.device().index())),
      progress_(torch::zeros({sizeof(Progress)}, torch::dtype(torch::kByte).device(dataset.device()))),
      order_(torch::zeros({images}, torch::dtype(torch::kInt).device(dataset.device()))),
      rates_(learning_rates(options, images, dataset.device())),
      learning_rate_(torch::zeros({1}, rates_.options())) {
  at::globalContext().setBenchmarkCuDNN(true);
  at::globalContext().setAllowTF32CuDNN(false);  // --precision fp32 means it
}

void Steps::begin_epoch(std::int64_t epoch, std::int64_t batch, std::int64_t step, std::int64_t skipped) {
  const std::vector<std::uint32_t> order = epoch_order(options_.seed, epoch, images_);
  order_.copy_(to_device(images_, torch::kInt, order.data(), dataset_.device()));
  now_ = {.epoch = epoch,
          .image = batch * options_.batch_size,
          .step = step,
          .loss_sum = 0.0,
          .loss_images = 0,
          .correct = 0,
          .skipped = skipped,
          .longest_skipped = skipped,
          .last_loss = 0.0};
}

Progress Steps::run(std::int64_t count) {
  now_ = {.epoch = now_.epoch,
          .image = now_.image,
          .step = now_.step,
          .loss_sum = 0.0,
          .loss_images = 0,
          .correct = 0,
          .skipped = now_.skipped,
          .longest_skipped = now_.skipped,
          .last_loss = 0.0};
  progress_.copy_(to_device(sizeof(Progress), torch::kByte, &now_, dataset_.device()));
  // What the default stream has written (this, an evaluation, a restored checkpoint) is complete for ours.
  c10::cuda::getCurrentCUDAStream().synchronize();
  {
    const c10::cuda::CUDAStreamGuard guard(stream_);
    std::int64_t image = now_.image;
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t images = std::min(options_.batch_size, images_ - image);
      take_step(images);
      image += images;
    }
  }
  stream_.synchronize();
  const torch::Tensor host = progress_.cpu();
  std::memcpy(&now_, host.const_data_ptr(), sizeof(Progress));
  // Replays write the weights without moving the counters by which a BitLinear knows them.
  for (const torch::Tensor& parameter : learner_.network()->parameters()) {
    parameter.unsafeGetTensorImpl()->bump_version();
  }
  return now_;
}

void Steps::take_step(std::int64_t images) {
  Captured& steps = captured_[images];
  if (steps.graph) {
    steps.graph->replay();
  } else if (steps.seen < kStepsBeforeCapture) {
    ++steps.seen;
    step_on_device(images);
  } else {
    stream_.synchronize();
    learner_.optimizer().zero_grad(/*set_to_none=*/true);
    steps.graph = std::make_unique<at::cuda::CUDAGraph>();
    steps.graph->capture_begin();
    step_on_device(images);
    steps.graph->capture_end();
    // The gradients are the graph's: the next eager step makes its own.
    learner_.optimizer().zero_grad(/*set_to_none=*/true);
    steps.graph->replay();
  }
}

void Steps::step_on_device(std::int64_t images) {
  namespace F = torch::nn::functional;
  auto* const progress = reinterpret_cast<Progress*>(progress_.mutable_data_ptr());
  BatchKernel kernel{};
  kernel.order = order_.const_data_ptr<std::int32_t>();
  kernel.progress = progress;
  kernel.seed = options_.seed;
  kernel.images = images;
  kernel.rates = rates_.const_data_ptr<float>();
  kernel.learning_rate = learning_rate_.mutable_data_ptr<float>();
  const auto [x, labels] = dataset_.batch(kernel, input_type(options_.precision));

  AdamW& optimizer = learner_.optimizer();
  optimizer.zero_grad(/*set_to_none=*/true);
  torch::Tensor logits, loss;
  {
    const bool half = options_.precision != Precision::fp32;
    const trit::amp::AutocastGuard autocast(torch::kCUDA,
                                            half ? input_type(options_.precision) : torch::kHalf, half);
    logits = learner_.network()->forward(x).to(torch::kFloat);
    loss = F::cross_entropy(logits, labels,
                            F::CrossEntropyFuncOptions().label_smoothing(options_.label_smoothing));
  }
  trit::amp::GradScaler& scaler = learner_.scaler();
  scaler.scale(loss).backward();

  const torch::NoGradGuard no_gradients;
  torch::Tensor found_inf;
  if (scaler.is_enabled()) {
    scaler.unscale_(optimizer);
    found_inf = scaler.found_inf(optimizer);
  }
  torch::Tensor norm;
  if (options_.clip > 0.0) {
    std::vector<torch::Tensor> gradients;
    for (const torch::Tensor& parameter : learner_.network()->parameters()) {
      gradients.push_back(parameter.grad());
    }
    norm = clip_gradients(gradients, options_.clip);
  }
  if (!scaler.is_enabled()) {
    found_inf = torch::empty({}, loss.options());
    find_not_finite(loss.const_data_ptr<float>(), norm.defined() ? norm.const_data_ptr<float>() : nullptr,
                    found_inf.mutable_data_ptr<float>(), stream_.stream());
  }
  optimizer.step(learning_rate_, found_inf);
  if (scaler.is_enabled()) {
    scaler.update();
  }
  const torch::Tensor values = logits.detach().contiguous();
  finish_step({.loss = loss.const_data_ptr<float>(),
               .logits = values.const_data_ptr<float>(),
               .labels = labels.const_data_ptr<std::int64_t>(),
               .images = images,
               .classes = values.size(1),
               .found_inf = found_inf.const_data_ptr<float>(),
               .progress = progress},
              stream_.stream());
}

}  // namespace trit::train::gpu
