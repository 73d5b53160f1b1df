// SPDX-License-Identifier: MIT
#include "train_cifar10/evaluate.h"

#include <algorithm>

namespace trit::train {

Evaluation evaluate(SimpleBitNetCNN& network, const apps::ImageDataset& dataset, torch::Device device,
                    const std::function<bool()>& stop) {
  constexpr std::int64_t kBatch = 250;
  const torch::NoGradGuard no_gradients;
  network->eval();
  Evaluation result;
  std::int64_t correct = 0;
  for (std::int64_t first = 0; first < dataset.count() && !stop(); first += kBatch) {
    const std::int64_t images = std::min(kBatch, dataset.count() - first);
    torch::Tensor x = torch::empty({images, 3, 32, 32});
    apps::normalize(dataset, first, images,
                    {x.mutable_data_ptr<float>(), static_cast<std::size_t>(x.numel())});
    const torch::Tensor labels =
        torch::from_blob(const_cast<std::uint8_t*>(dataset.labels.data() + first), {images}, torch::kUInt8)
            .to(device, torch::kInt64);
    const torch::Tensor logits =
        network(x.to(device).contiguous(at::MemoryFormat::ChannelsLast)).to(torch::kFloat32);
    result.loss +=
        torch::nn::functional::cross_entropy(
            logits, labels, torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kSum))
            .item<double>();
    const torch::Tensor classes = logits.argmax(1);
    correct += classes.eq(labels).sum().item<std::int64_t>();
    const torch::Tensor bytes = classes.to(torch::kCPU, torch::kUInt8).contiguous();
    result.predictions.insert(result.predictions.end(), bytes.const_data_ptr<std::uint8_t>(),
                              bytes.const_data_ptr<std::uint8_t>() + images);
  }
  network->train();
  const auto images = static_cast<double>(std::max<std::int64_t>(1, dataset.count()));
  result.loss /= images;
  result.accuracy = 100.0 * static_cast<double>(correct) / images;
  return result;
}

}  // namespace trit::train
