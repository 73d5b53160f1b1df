// SPDX-License-Identifier: MIT
#include "train_cifar10/batches.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <set>

namespace trit::train {
namespace {

constexpr int kSize = 32;

/// Every byte differs from its neighbours, so that a crop that is off by one shows.
apps::ImageDataset numbered_images(std::int64_t count) {
  apps::ImageDataset dataset;
  dataset.mean = {0.5F, 0.4F, 0.3F};
  dataset.std = {0.2F, 0.25F, 0.3F};
  for (std::int64_t i = 0; i < count; ++i) {
    dataset.labels.push_back(static_cast<std::uint8_t>(i % 10));
    for (int byte = 0; byte < apps::ImageDataset::kImageBytes; ++byte) {
      dataset.pixels.push_back(static_cast<std::uint8_t>((byte * 37 + byte / 1024 * 11 + i * 5) % 251));
    }
  }
  return dataset;
}

/// The definition: pad, cut, mirror, normalise; one element at a time.
std::vector<float> naive_augment(std::span<const std::uint8_t> image, const Crop& crop,
                                 const apps::ImageDataset& dataset) {
  std::vector<float> x;
  for (int i = 0; i < kSize; ++i) {
    for (int j = 0; j < kSize; ++j) {
      const int row = i + crop.top - 4, column = (crop.mirror ? kSize - 1 - j : j) + crop.left - 4;
      const bool inside = row >= 0 && row < kSize && column >= 0 && column < kSize;
      for (int c = 0; c < 3; ++c) {
        const auto channel = static_cast<std::size_t>(c);
        const int byte = inside ? image[static_cast<std::size_t>((c * kSize + row) * kSize + column)] : 0;
        x.push_back((static_cast<float>(byte) / 255.0F - dataset.mean[channel]) / dataset.std[channel]);
      }
    }
  }
  return x;
}

TEST(Augment, EqualsTheDefinitionForEveryCrop) {
  const apps::ImageDataset dataset = numbered_images(1);
  const NormalizeTable table = normalize_table(dataset);
  std::vector<float> x(apps::ImageDataset::kImageBytes);
  for (int top = 0; top <= 8; ++top) {
    for (int left = 0; left <= 8; ++left) {
      for (const bool mirror : {false, true}) {
        const Crop crop{top, left, mirror};
        std::fill(x.begin(), x.end(), NAN);
        augment(dataset.image(0), crop, table, x);
        ASSERT_EQ(x, naive_augment(dataset.image(0), crop, dataset)) << top << " " << left << " " << mirror;
      }
    }
  }
}

TEST(Augment, TableIsBitIdenticalToNormalize) {
  apps::ImageDataset dataset = numbered_images(1);
  for (int byte = 0; byte < 256; ++byte) {
    for (int c = 0; c < 3; ++c)
      dataset.pixels[static_cast<std::size_t>(c * 1024 + byte)] = static_cast<std::uint8_t>(byte);
  }
  std::vector<float> x(apps::ImageDataset::kImageBytes);
  apps::normalize(dataset, 0, 1, x);
  const NormalizeTable table = normalize_table(dataset);
  for (std::size_t c = 0; c < 3; ++c) {
    for (std::size_t byte = 0; byte < 256; ++byte)
      ASSERT_EQ(x[c * 1024 + byte], table[c][byte]) << c << " " << byte;
  }
}

TEST(EpochOrder, IsAPermutationThatDependsOnSeedAndEpoch) {
  const std::vector<std::uint32_t> order = epoch_order(7, 3, 5000);
  EXPECT_EQ(std::set<std::uint32_t>(order.begin(), order.end()).size(), 5000U);
  EXPECT_EQ(*std::max_element(order.begin(), order.end()), 4999U);
  EXPECT_EQ(order, epoch_order(7, 3, 5000));
  EXPECT_NE(order, epoch_order(7, 4, 5000));
  EXPECT_NE(order, epoch_order(8, 3, 5000));
}

// 40,500 draws over 162 outcomes: chi-square has mean 161 and standard deviation 18; a generator that misses
// an outcome adds 250.
TEST(RandomCrop, IsUniform) {
  std::vector<int> counts(162);
  for (std::int64_t position = 0; position < 40'500; ++position) {
    const Crop crop = random_crop(1, 2, position);
    ASSERT_TRUE(crop.top >= 0 && crop.top <= 8 && crop.left >= 0 && crop.left <= 8);
    ++counts[static_cast<std::size_t>((crop.top * 9 + crop.left) * 2 + (crop.mirror ? 1 : 0))];
  }
  double chi_square = 0.0;
  for (const int count : counts) chi_square += (count - 250.0) * (count - 250.0) / 250.0;
  EXPECT_LT(chi_square, 250.0);
  EXPECT_GT(chi_square, 90.0);
}

struct Seen {
  std::vector<std::vector<float>> pixels;
  std::vector<std::vector<std::int64_t>> labels;
};
Seen read_all(const apps::ImageDataset& dataset, const EpochBatches::Options& options) {
  Seen seen;
  EpochBatches batches(dataset, options);
  while (const Batch* batch = batches.next()) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(batch->pixels.data()) % 64, 0U);
    seen.pixels.emplace_back(batch->pixels.begin(), batch->pixels.end());
    seen.labels.emplace_back(batch->labels.begin(), batch->labels.end());
  }
  EXPECT_EQ(batches.next(), nullptr);
  return seen;
}

TEST(EpochBatches, HoldEveryImageOnceWithItsAugmentation) {
  const apps::ImageDataset dataset = numbered_images(70);
  const Seen seen =
      read_all(dataset, {.images = 70, .batch_size = 16, .seed = 5, .epoch = 2, .first_batch = 0});
  ASSERT_EQ(seen.labels.size(), 5U);
  EXPECT_EQ(seen.labels.back().size(), 6U);
  const std::vector<std::uint32_t> order = epoch_order(5, 2, 70);
  for (std::size_t position = 0; position < 70; ++position) {
    const std::size_t batch = position / 16, place = position % 16;
    EXPECT_EQ(seen.labels[batch][place], dataset.labels[order[position]]);
    const std::vector<float> want = naive_augment(
        dataset.image(order[position]), random_crop(5, 2, static_cast<std::int64_t>(position)), dataset);
    ASSERT_EQ(0, std::memcmp(want.data(), seen.pixels[batch].data() + place * want.size(), want.size() * 4));
  }
}

TEST(EpochBatches, ResumeInTheMiddleOfAnEpoch) {
  const apps::ImageDataset dataset = numbered_images(70);
  const Seen all =
      read_all(dataset, {.images = 65, .batch_size = 10, .seed = 1, .epoch = 0, .first_batch = 0});
  for (std::int64_t first = 0; first <= 7; ++first) {
    const Seen rest =
        read_all(dataset, {.images = 65, .batch_size = 10, .seed = 1, .epoch = 0, .first_batch = first});
    EXPECT_TRUE(
        std::equal(rest.pixels.begin(), rest.pixels.end(), all.pixels.begin() + first, all.pixels.end()));
    EXPECT_TRUE(
        std::equal(rest.labels.begin(), rest.labels.end(), all.labels.begin() + first, all.labels.end()));
  }
}

TEST(EpochBatches, CanStopBeforeTheEnd) {
  const apps::ImageDataset dataset = numbered_images(200);
  for (int taken = 0; taken < 20; ++taken) {
    EpochBatches batches(dataset, {.images = 200, .batch_size = 8, .seed = 1, .epoch = 0, .first_batch = 0});
    for (int i = 0; i < taken; ++i) ASSERT_NE(batches.next(), nullptr);
  }
}

}  // namespace
}  // namespace trit::train
