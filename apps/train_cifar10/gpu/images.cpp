// SPDX-License-Identifier: MIT
#include "train_cifar10/gpu/images.h"

#include <c10/cuda/CUDAStream.h>

#include <algorithm>

#include "train_cifar10/batches.h"

namespace trit::train::gpu {
namespace {

// A copy of host memory on `device`; the memory need not stay.
template <typename Value>
torch::Tensor copied(const Value* values, std::int64_t count, torch::ScalarType type, torch::Device device) {
  return torch::from_blob(const_cast<Value*>(values), {count}, type).to(device);
}

DataType data_type(torch::ScalarType type) {
  return type == torch::kBFloat16 ? DataType::bfloat16
         : type == torch::kHalf   ? DataType::float16
                                  : DataType::float32;
}

}  // namespace

Images::Images(const apps::ImageDataset& dataset, torch::Device device)
    : pixels_(copied(dataset.pixels.data(), static_cast<std::int64_t>(dataset.pixels.size()), torch::kByte,
                     device)),
      labels_(copied(dataset.labels.data(), dataset.count(), torch::kByte, device)),
      table_(copied(normalize_table(dataset).front().data(), 3 * 256, torch::kFloat, device)) {}

Images::Batch Images::batch(BatchKernel kernel, torch::ScalarType type) const {
  const auto options = torch::dtype(type).device(device());
  Batch batch{
      .x = torch::empty({kernel.images, 3, 32, 32}, options.memory_format(torch::MemoryFormat::ChannelsLast)),
      .labels = torch::empty({kernel.images}, options.dtype(torch::kLong))};
  kernel.pixels = pixels_.const_data_ptr<std::uint8_t>();
  kernel.labels = labels_.const_data_ptr<std::uint8_t>();
  kernel.table = table_.const_data_ptr<float>();
  kernel.x_type = data_type(type);
  kernel.x = batch.x.mutable_data_ptr();
  kernel.y = batch.labels.mutable_data_ptr<std::int64_t>();
  make_batch(kernel, c10::cuda::getCurrentCUDAStream(device().index()).stream());
  return batch;
}

Images::Batch Images::batch(std::int64_t first, std::int64_t images) const {
  BatchKernel kernel{};
  kernel.first = first;
  kernel.images = images;
  return batch(kernel, torch::kFloat);
}

Evaluation evaluate(SimpleBitNetCNN& network, const Images& images) {
  constexpr std::int64_t kBatch = 2000;  // 260 MB of float activations
  const torch::NoGradGuard no_gradients;
  network->eval();
  const auto options = torch::nn::CrossEntropyLossOptions().reduction(torch::kSum);
  torch::Tensor loss = torch::zeros({}, torch::dtype(torch::kDouble).device(images.device()));
  torch::Tensor correct = torch::zeros({}, torch::dtype(torch::kLong).device(images.device()));
  std::vector<torch::Tensor> classes;
  for (std::int64_t first = 0; first < images.count(); first += kBatch) {
    const auto [x, labels] = images.batch(first, std::min(kBatch, images.count() - first));
    const torch::Tensor logits = network(x);
    loss += torch::nn::functional::cross_entropy(logits, labels, options);
    classes.push_back(logits.argmax(1));
    correct += classes.back().eq(labels).sum();
  }
  network->train();
  Evaluation result;
  const auto count = static_cast<double>(std::max<std::int64_t>(1, images.count()));
  result.loss = loss.item<double>() / count;
  result.accuracy = 100.0 * static_cast<double>(correct.item<std::int64_t>()) / count;
  const torch::Tensor bytes = torch::cat(classes).to(torch::kByte).cpu();
  const auto* const begin = bytes.const_data_ptr<std::uint8_t>();
  result.predictions.assign(begin, begin + bytes.numel());
  return result;
}

}  // namespace trit::train::gpu
