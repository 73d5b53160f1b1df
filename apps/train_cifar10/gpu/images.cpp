// SPDX-License-Identifier: MIT
#include "train_cifar10/gpu/images.h"

#include <c10/cuda/CUDAStream.h>

#include "train_cifar10/batches.h"

namespace trit::train::gpu {
namespace {

// A copy on `device` of host memory, which need not outlive the call.
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

ImageBatch Images::batch(BatchKernel kernel, torch::ScalarType type) const {
  const auto options = torch::dtype(type).device(device());
  ImageBatch batch{
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

ImageBatch Images::batch(std::int64_t first, std::int64_t images) const {
  BatchKernel kernel{};
  kernel.first = first;
  kernel.images = images;
  return batch(kernel, torch::kFloat);
}

}  // namespace trit::train::gpu
