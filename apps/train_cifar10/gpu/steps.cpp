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

// The first step loads cuDNN's kernels and lets LibTorch make its workspaces; by the third the allocator has
// settled.
constexpr int kStepsBeforeCapture = 3;

torch::Tensor to_device(std::int64_t count, torch::ScalarType type, const void* values,
                        torch::Device device) {
  return torch::from_blob(const_cast<void*>(values), {count}, type).to(device);
}

torch::Tensor learning_rates(const TrainOptions& options, std::int64_t batches, torch::Device device) {
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

// torch::nn::utils::clip_grad_norm_ that does not wait for the norm, which it returns.
torch::Tensor clip_gradients(std::vector<torch::Tensor>& gradients, double max_norm) {
  const torch::Tensor norm = torch::stack(at::_foreach_norm(gradients)).norm();
  at::_foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp_max(1.0));
  return norm;
}

}  // namespace

Steps::Steps(const TrainOptions& options, const Processes& processes, const TrainingData& data,
             Learner& learner)
    : options_(options),
      processes_(processes),
      learner_(learner),
      train_(data.train, learner.device()),
      test_(data.test, learner.device()),
      images_(data.images),
      stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, train_.device().index())),
      progress_(torch::zeros({sizeof(Progress)}, torch::dtype(torch::kByte).device(train_.device()))),
      order_(torch::zeros({images_}, torch::dtype(torch::kInt).device(train_.device()))),
      rates_(learning_rates(options, data.batches, train_.device())),
      learning_rate_(torch::zeros({1}, rates_.options())) {
  // The ways that cuDNN proposes first are as fast as those that a search finds, which takes 0.2 s and more
  // (docs/notes/training.md).
  at::globalContext().setBenchmarkCuDNN(false);
  at::globalContext().setAllowTF32CuDNN(false);  // --precision fp32 means fp32
}

void Steps::begin_epoch(const Position& position) {
  const std::vector<std::uint32_t> order = epoch_order(options_.seed, position.epoch, images_);
  order_.copy_(to_device(images_, torch::kInt, order.data(), train_.device()));
  now_ = {.epoch = position.epoch,
          .image = position.batch * options_.batch_size,
          .step = position.step,
          .sums = {.skipped = position.skipped}};
}

StepRunner::Done Steps::run(std::int64_t max_steps) {
  now_.sums = {.skipped = now_.sums.skipped, .max_skipped = now_.sums.skipped};
  progress_.copy_(to_device(sizeof(Progress), torch::kByte, &now_, train_.device()));
  // Our stream must see all that the default stream has written: this, an evaluation, a restored checkpoint.
  c10::cuda::getCurrentCUDAStream().synchronize();
  {
    const c10::cuda::CUDAStreamGuard guard(stream_);
    std::int64_t image = now_.image;
    for (std::int64_t i = 0; i < max_steps; ++i) {
      const std::int64_t images = std::min(options_.batch_size, images_ - image);
      take_step(images);
      image += images;
    }
  }
  stream_.synchronize();
  const torch::Tensor host = progress_.cpu();
  std::memcpy(&now_, host.const_data_ptr(), sizeof(Progress));
  // A replayed graph writes the weights without changing the version counters that BitLinear checks.
  for (const torch::Tensor& parameter : learner_.network()->parameters()) {
    parameter.unsafeGetTensorImpl()->bump_version();
  }
  Done done{max_steps, now_.sums};
  if (processes_.several()) {
    StepSums& sums = done.sums;
    double totals[] = {sums.loss_sum, static_cast<double>(sums.loss_images),
                       static_cast<double>(sums.correct), sums.last_loss / processes_.part().count};
    processes_.sum(totals);
    sums.loss_sum = totals[0];
    sums.loss_images = static_cast<std::int64_t>(totals[1]);
    sums.correct = static_cast<std::int64_t>(totals[2]);
    sums.last_loss = totals[3];
  }
  return done;
}

Evaluation Steps::evaluate(const std::function<bool()>& stop) {
  constexpr std::int64_t kBatch = 2000;  // 260 MB of float activations
  const auto batch = [this](std::int64_t first, std::int64_t count) { return test_.batch(first, count); };
  return train::evaluate(learner_.network(), processes_, test_.count(), kBatch, batch, stop);
}

void Steps::take_step(std::int64_t images) {
  if (processes_.several()) {
    step_on_device(images);
    return;
  }
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
    // The graph owns these gradients: the next step outside a graph makes its own.
    learner_.optimizer().zero_grad(/*set_to_none=*/true);
    steps.graph->replay();
  }
}

void Steps::step_on_device(std::int64_t whole) {
  // A process whose part of the batch is empty takes part with an image that does not count.
  const std::int64_t counted = processes_.part().size(whole);
  const std::int64_t images = std::max<std::int64_t>(counted, 1);
  auto* const progress = reinterpret_cast<Progress*>(progress_.mutable_data_ptr());
  BatchKernel kernel{};
  kernel.order = order_.const_data_ptr<std::int32_t>();
  kernel.progress = progress;
  kernel.part_begin = std::min(processes_.part().begin(whole), whole - 1);
  kernel.seed = options_.seed;
  kernel.images = images;
  kernel.rates = rates_.const_data_ptr<float>();
  kernel.learning_rate = learning_rate_.mutable_data_ptr<float>();
  const auto [x, labels] = train_.batch(kernel, input_type(options_.precision));

  AdamW& optimizer = learner_.optimizer();
  optimizer.zero_grad(/*set_to_none=*/true);
  const auto [logits, loss] = learner_.forward(x, labels);
  trit::amp::GradScaler& scaler = learner_.scaler();
  const double share = static_cast<double>(counted * processes_.part().count) / static_cast<double>(whole);
  (share == 1.0 ? scaler.scale(loss) : scaler.scale(loss) * share).backward();

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
    if (processes_.several()) {
      processes_.group().all_reduce(found_inf);
    }
  }
  optimizer.step(learning_rate_, found_inf);
  if (scaler.is_enabled()) {
    scaler.update();
  }
  const torch::Tensor values = logits.detach().contiguous();
  finish_step({.loss = loss.const_data_ptr<float>(),
               .logits = values.const_data_ptr<float>(),
               .labels = labels.const_data_ptr<std::int64_t>(),
               .images = counted,
               .classes = values.size(1),
               .elsewhere = whole - counted,
               .found_inf = found_inf.const_data_ptr<float>(),
               .progress = progress},
              stream_.stream());
}

}  // namespace trit::train::gpu
