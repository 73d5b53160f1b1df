// SPDX-License-Identifier: MIT
#include "train_cifar10/step_runner.h"

#include <algorithm>
#include <cmath>

#include "train_cifar10/batches.h"
#include "train_cifar10/schedule.h"
#if TRIT_TORCH_CUDA
#include <c10/cuda/CUDAFunctions.h>

#include "train_cifar10/gpu/steps.h"
#endif

namespace trit::train {
namespace {

/// Steps on the CPU, one per run().
class CpuSteps final : public StepRunner {
 public:
  CpuSteps(const TrainOptions& options, const Processes& processes, const TrainingData& data,
           Learner& learner)
      : options_(options), processes_(processes), data_(data), learner_(learner) {}

  void begin_epoch(const Position& position) override;
  Done run(std::int64_t max_steps) override;
  Evaluation evaluate(const std::function<bool()>& stop) override;

 private:
  bool take_step(const Batch& batch, StepSums& sums);  // false: skipped

  TrainOptions options_;
  const Processes& processes_;
  const TrainingData& data_;
  Learner& learner_;
  std::unique_ptr<EpochBatches> batches_;
  std::int64_t step_ = 0;  // of the whole run
  std::int64_t skipped_ = 0;
};

void CpuSteps::begin_epoch(const Position& position) {
  batches_ =
      std::make_unique<EpochBatches>(data_.train, EpochBatches::Options{.images = data_.images,
                                                                        .batch_size = options_.batch_size,
                                                                        .seed = options_.seed,
                                                                        .epoch = position.epoch,
                                                                        .first_batch = position.batch,
                                                                        .part = processes_.part()});
  step_ = position.step;
  skipped_ = position.skipped;
}

StepRunner::Done CpuSteps::run(std::int64_t /*max_steps*/) {
  const Batch* const batch = batches_->next();
  TORCH_CHECK(batch != nullptr, "the epoch has no more batches");
  Done done{.steps = 1, .sums = {}};
  skipped_ = take_step(*batch, done.sums) ? 0 : skipped_ + 1;
  done.sums.skipped = done.sums.max_skipped = skipped_;
  ++step_;
  return done;
}

bool CpuSteps::take_step(const Batch& batch, StepSums& sums) {
  constexpr std::int64_t kChannels = 3, kSize = 32, kImage = kChannels * kSize * kSize;
  // A process whose part of the batch is empty takes part with an image that does not count.
  const std::int64_t images = std::max<std::int64_t>(batch.images, 1);
  torch::Tensor x = torch::from_blob(batch.pixels.data(), {images, kChannels, kSize, kSize},
                                     {kImage, 1, kSize * kChannels, kChannels});
  torch::Tensor labels = torch::from_blob(batch.labels.data(), {images}, torch::kInt64);
  if (batch.images == 0) {
    x = torch::zeros_like(x);
    labels = torch::zeros_like(labels);
  }
  AdamW& optimizer = learner_.optimizer();
  trit::amp::GradScaler& scaler = learner_.scaler();
  optimizer.set_learning_rate(learning_rate(options_, data_.batches, step_));
  optimizer.zero_grad(/*set_to_none=*/true);
  const auto [logits, loss] = learner_.forward(x, labels);
  const auto counted = static_cast<double>(batch.images);
  double totals[] = {batch.images == 0 ? 0.0 : loss.item<double>() * counted, counted,
                     batch.images == 0 ? 0.0 : logits.detach().argmax(1).eq(labels).sum().item<double>()};
  processes_.sum(totals);
  sums.last_loss = totals[0] / totals[1];
  if (!std::isfinite(sums.last_loss)) return false;
  sums.loss_sum = sums.last_loss * totals[1];
  sums.loss_images = static_cast<std::int64_t>(totals[1]);
  sums.correct = static_cast<std::int64_t>(totals[2]);

  // The mean over the processes of share * mean over the part is the mean over the batch.
  const double share = counted * processes_.part().count / totals[1];
  (share == 1.0 ? scaler.scale(loss) : scaler.scale(loss) * share).backward();
  bool finite = true;
  if (options_.clip > 0.0) {
    scaler.unscale_(optimizer);
    finite =
        std::isfinite(torch::nn::utils::clip_grad_norm_(learner_.network()->parameters(), options_.clip));
  }
  // An enabled scaler skips the step itself, and lowers its scale, when a gradient has Inf or NaN.
  if (scaler.is_enabled()) {
    const bool taken = scaler.step(optimizer);
    scaler.update();
    return taken;
  }
  if (finite) optimizer.step();
  return finite;
}

Evaluation CpuSteps::evaluate(const std::function<bool()>& stop) {
  constexpr std::int64_t kBatch = 250;
  const apps::ImageDataset& test = data_.test;
  const auto batch = [&](std::int64_t first, std::int64_t images) -> ImageBatch {
    const torch::Tensor x = torch::empty({images, 3, 32, 32});
    apps::normalize(test, first, images, {x.mutable_data_ptr<float>(), static_cast<std::size_t>(x.numel())});
    const torch::Tensor labels =
        torch::from_blob(const_cast<std::uint8_t*>(test.labels.data() + first), {images}, torch::kUInt8);
    return {x.contiguous(at::MemoryFormat::ChannelsLast), labels.to(torch::kInt64)};
  };
  return train::evaluate(learner_.network(), processes_, test.count(), kBatch, batch, stop);
}

}  // namespace

std::unique_ptr<StepRunner> make_step_runner(const TrainOptions& options, const Processes& processes,
                                             const TrainingData& data, Learner& learner) {
#if TRIT_TORCH_CUDA
  if (learner.device().is_cuda()) {
    // Our kernels and the stream pool use the current GPU.
    if (learner.device().has_index()) c10::cuda::set_device(learner.device().index());
    return std::make_unique<gpu::Steps>(options, processes, data, learner);
  }
#endif
  return std::make_unique<CpuSteps>(options, processes, data, learner);
}

}  // namespace trit::train
