// SPDX-License-Identifier: MIT
//
// A GPU's training batches are the CPU's for the same seed: the same images in the same order, cropped and
// mirrored alike, the same floats. By the emulator, or, built for it, on a GPU.
#include <algorithm>
#include <random>

#include "cuda/support.h"
#include "train_cifar10/batches.h"
#include "train_cifar10/gpu/kernels.h"

namespace trit::test {
namespace {

using train::EpochBatches;

constexpr std::int64_t kImage = apps::ImageDataset::kImageBytes;

class GpuBatches : public CudaTest {
 protected:
  apps::ImageDataset random_images(std::int64_t count) {
    apps::ImageDataset dataset;
    dataset.mean = {0.49F, 0.48F, 0.45F};
    dataset.std = {0.247F, 0.243F, 0.262F};
    for (std::int64_t i = 0; i < count * kImage; ++i) {
      dataset.pixels.push_back(static_cast<std::uint8_t>(uniform(0, 255)));
    }
    for (std::int64_t i = 0; i < count; ++i) {
      dataset.labels.push_back(static_cast<std::uint8_t>(uniform(0, 9)));
    }
    return dataset;
  }
};

template <typename Element>
struct Found {
  std::vector<Element> x;
  std::vector<std::int64_t> labels;
  float learning_rate;
};

/// A data set on the GPU.
class OnGpu {
 public:
  explicit OnGpu(const apps::ImageDataset& dataset)
      : pixels_{std::span<const std::uint8_t>(dataset.pixels)},
        labels_{std::span<const std::uint8_t>(dataset.labels)},
        table_{std::span<const float>(train::normalize_table(dataset).front().data(), 3 * 256)} {}

  template <typename Element>
  Found<Element> batch(train::gpu::BatchKernel kernel, DataType type, const std::vector<float>& rates) const {
    const DeviceArray<Element> x(static_cast<std::size_t>(kernel.images * kImage));
    const DeviceArray<std::int64_t> labels(static_cast<std::size_t>(kernel.images));
    const DeviceArray<float> device_rates{std::span<const float>(rates)};
    const DeviceArray<float> learning_rate(1);
    kernel.pixels = pixels_.data();
    kernel.labels = labels_.data();
    kernel.table = table_.data();
    kernel.x_type = type;
    kernel.x = x.data();
    kernel.y = labels.data();
    kernel.rates = rates.empty() ? nullptr : device_rates.data();
    kernel.learning_rate = learning_rate.data();
    train::gpu::make_batch(kernel, nullptr);
    return {values_of(x), values_of(labels), values_of(learning_rate)[0]};
  }

 private:
  DeviceArray<std::uint8_t> pixels_, labels_;
  DeviceArray<float> table_;
};

TEST_F(GpuBatches, AreBitIdenticalToTheCpus) {
  constexpr std::int64_t kImages = 23, kBatch = 8;
  for (const std::uint64_t seed : {std::uint64_t{0}, std::uint64_t{7}, std::uint64_t{1} << 63}) {
    const apps::ImageDataset dataset = random_images(kImages + 4);  // training takes the first ones
    const OnGpu there(dataset);
    for (const std::int64_t epoch : {0, 1, 19}) {
      const std::vector<std::uint32_t> order = train::epoch_order(seed, epoch, kImages);
      const std::vector<std::int32_t> signed_order(order.begin(), order.end());
      const DeviceArray<std::int32_t> device_order{std::span<const std::int32_t>(signed_order)};
      EpochBatches batches(
          dataset, {.images = kImages, .batch_size = kBatch, .seed = seed, .epoch = epoch, .first_batch = 0});
      train::gpu::Progress progress{.epoch = epoch, .image = 0, .step = 3, .sums = {}};
      while (const train::Batch* const batch = batches.next()) {
        use_policy(progress.step);
        const DeviceArray<train::gpu::Progress> device_progress{
            std::span<const train::gpu::Progress>(&progress, 1)};
        train::gpu::BatchKernel kernel{};
        kernel.order = device_order.data();
        kernel.progress = device_progress.data();
        kernel.seed = seed;
        kernel.images = batch->images;
        std::vector<float> rates(static_cast<std::size_t>(progress.step + 2), 1.0F);
        rates[static_cast<std::size_t>(progress.step)] = 0.125F;
        const auto found = there.batch<float>(kernel, DataType::float32, rates);
        ASSERT_TRUE(std::ranges::equal(found.x, batch->pixels)) << "seed " << seed << ", epoch " << epoch;
        ASSERT_TRUE(std::ranges::equal(found.labels, batch->labels));
        ASSERT_EQ(found.learning_rate, 0.125F);
        // Half precision is the same value, rounded.
        const auto half = there.batch<std::uint16_t>(kernel, DataType::bfloat16, rates);
        for (std::size_t i = 0; i < half.x.size(); ++i) {
          ASSERT_EQ(half.x[i], to_half(DataType::bfloat16, batch->pixels[i])) << i;
        }
        progress.image += batch->images;
        ++progress.step;
        ++cases_;
      }
      ASSERT_EQ(progress.image, kImages);
    }
  }
}

TEST_F(GpuBatches, OfTestImagesAreNotAugmented) {
  const apps::ImageDataset dataset = random_images(5);
  const train::NormalizeTable table = train::normalize_table(dataset);
  train::gpu::BatchKernel kernel{};
  kernel.first = 2;
  kernel.images = 3;
  const auto found = OnGpu(dataset).batch<float>(kernel, DataType::float32, {});
  for (std::size_t image = 0; image < 3; ++image) {
    std::vector<float> wanted(static_cast<std::size_t>(kImage));
    train::augment(dataset.image(static_cast<std::int64_t>(image) + 2), train::Crop{}, table, wanted);
    ASSERT_TRUE(std::equal(wanted.begin(), wanted.end(),
                           found.x.begin() + static_cast<std::ptrdiff_t>(image) * kImage));
    ASSERT_EQ(found.labels[image], dataset.labels[image + 2]);
  }
}

}  // namespace
}  // namespace trit::test
