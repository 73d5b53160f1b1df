// SPDX-License-Identifier: MIT
//
// Training batches: shuffled, cropped, flipped and normalised by a thread of its own, up to two batches before
// they are needed.
//
// Augmentation: the image is padded with 4 zero pixels on each side; a 32x32 window is cut out at a uniformly
// drawn position (9 x 9 of them) and mirrored with probability 1/2. Order and augmentation depend only on
// (seed, epoch, position): see random.h.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "common/datasets.h"
#include "train_cifar10/part.h"

namespace trit::train {

/// The window that is cut out of a padded training image.
struct Crop {
  int top = 4, left = 4;  // 0..8; 4 is the image itself
  bool mirror = false;
};

/// The crop of the image at `position` of the epoch's order.
Crop random_crop(std::uint64_t seed, std::int64_t epoch, std::int64_t position);

/// The epoch's permutation of 0..count-1.
std::vector<std::uint32_t> epoch_order(std::uint64_t seed, std::int64_t epoch, std::int64_t count);

/// (pixel / 255 - mean) / std for each channel and byte: bit-identical to apps::normalize.
using NormalizeTable = std::array<std::array<float, 256>, 3>;
NormalizeTable normalize_table(const apps::ImageDataset& dataset);

/// One image [3, 32, 32] of bytes to x [32, 32, 3] of floats (channels last).
void augment(std::span<const std::uint8_t> image, const Crop& crop, const NormalizeTable& table,
             std::span<float> x);

/// A batch in channels-last order.
struct Batch {
  std::int64_t images = 0;
  std::span<float> pixels;         // [images, 32, 32, 3], 64-byte aligned
  std::span<std::int64_t> labels;  // [images]
};

/// The batches of one epoch, from `first_batch` on, or a part of each; the last may be smaller.
class EpochBatches {
 public:
  struct Options {
    std::int64_t images;  // the first ones of the data set
    std::int64_t batch_size;
    std::uint64_t seed;
    std::int64_t epoch;
    std::int64_t first_batch;
    Part part = {};  // of each batch
  };
  /// `dataset` must outlive it.
  EpochBatches(const apps::ImageDataset& dataset, const Options& options);
  ~EpochBatches();
  EpochBatches(const EpochBatches&) = delete;
  EpochBatches& operator=(const EpochBatches&) = delete;

  /// The next batch, valid until the following call, or null at the epoch's end.
  const Batch* next();

  /// Number of batches of a whole epoch.
  static std::int64_t count(std::int64_t images, std::int64_t batch_size) {
    return (images + batch_size - 1) / batch_size;
  }

 private:
  // The consumer holds one buffer, so that two can be prepared while a step runs.
  static constexpr std::int64_t kBuffers = 3;

  struct Free {
    void operator()(float* pointer) const;
  };
  struct Buffer {
    std::unique_ptr<float[], Free> pixels;
    std::vector<std::int64_t> labels;
    Batch batch;
  };

  void prepare(std::int64_t index, Buffer& buffer) const;
  void work();

  const apps::ImageDataset& dataset_;
  Options options_;
  std::int64_t batches_;
  NormalizeTable table_;
  std::vector<std::uint32_t> order_;
  std::array<Buffer, kBuffers> buffers_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::int64_t prepared_;  // batches [first, prepared_) are or were ready
  std::int64_t released_;  // batches [first, released_) are no longer in use
  std::int64_t next_;      // the batch that next() will return
  bool stop_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace trit::train
