// SPDX-License-Identifier: MIT
#include "train_cifar10/evaluate.h"

#include <algorithm>

namespace trit::train {

Evaluation evaluate(SimpleBitNetCNN& network, const Processes& processes, std::int64_t images,
                    std::int64_t batch_size,
                    const std::function<ImageBatch(std::int64_t first, std::int64_t count)>& batch,
                    const std::function<bool()>& stop) {
  const torch::NoGradGuard no_gradients;
  network->eval();
  // Sums stay on the device: a GPU's host waits once, at the end.
  const auto sum = torch::nn::CrossEntropyLossOptions().reduction(torch::kSum);
  torch::Tensor loss, correct;
  std::vector<torch::Tensor> classes;
  const std::int64_t begin = processes.part().begin(images);
  const std::int64_t end = processes.part().end(images);
  for (std::int64_t first = begin; first < end && !stop(); first += batch_size) {
    const auto [x, labels] = batch(first, std::min(batch_size, end - first));
    const torch::Tensor logits = network(x);
    classes.push_back(logits.argmax(1));
    const torch::Tensor batch_loss =
        torch::nn::functional::cross_entropy(logits, labels, sum).to(torch::kDouble);
    const torch::Tensor batch_correct = classes.back().eq(labels).sum();
    loss = loss.defined() ? loss + batch_loss : batch_loss;
    correct = correct.defined() ? correct + batch_correct : batch_correct;
  }
  network->train();
  Evaluation result;
  result.predictions.resize(static_cast<std::size_t>(images));
  double sums[] = {0.0, 0.0};
  if (!classes.empty()) {
    sums[0] = loss.item<double>();
    sums[1] = static_cast<double>(correct.item<std::int64_t>());
    const torch::Tensor bytes = torch::cat(classes).to(torch::kByte).cpu();
    const auto* const found = bytes.const_data_ptr<std::uint8_t>();
    std::copy(found, found + bytes.numel(), result.predictions.begin() + begin);
  }
  processes.sum(sums);
  processes.sum(result.predictions);
  result.loss = sums[0] / static_cast<double>(images);
  result.accuracy = 100.0 * sums[1] / static_cast<double>(images);
  return result;
}

}  // namespace trit::train
