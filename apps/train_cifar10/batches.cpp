// SPDX-License-Identifier: MIT
#include "train_cifar10/batches.h"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <numeric>
#include <utility>

#include "train_cifar10/random.h"

namespace trit::train {
namespace {

constexpr int kPad = 4, kSize = 32, kPlane = kSize * kSize;
constexpr std::size_t kAlignment = 64;

}  // namespace

Crop random_crop(std::uint64_t seed, std::int64_t epoch, std::int64_t position) {
  constexpr std::uint64_t kPositions = 2 * kPad + 1;
  const CounterRandom random(seed, CounterRandom::Stream::augmentation, epoch);
  const std::uint32_t draw = random.below(static_cast<std::uint64_t>(position), kPositions * kPositions * 2);
  return {.top = static_cast<int>(draw / 2 / kPositions),
          .left = static_cast<int>(draw / 2 % kPositions),
          .mirror = draw % 2 == 1};
}

std::vector<std::uint32_t> epoch_order(std::uint64_t seed, std::int64_t epoch, std::int64_t count) {
  std::vector<std::uint32_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0U);
  const CounterRandom random(seed, CounterRandom::Stream::order, epoch);
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i, i)]);
  return order;
}

NormalizeTable normalize_table(const apps::ImageDataset& dataset) {
  NormalizeTable table;
  for (std::size_t channel = 0; channel < table.size(); ++channel) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      table[channel][byte] =
          (static_cast<float>(byte) / 255.0F - dataset.mean[channel]) / dataset.std[channel];
    }
  }
  return table;
}

void augment(std::span<const std::uint8_t> image, const Crop& crop, const NormalizeTable& table,
             std::span<float> x) {
  const std::uint8_t* const red = image.data();
  const std::uint8_t* const green = red + kPlane;
  const std::uint8_t* const blue = green + kPlane;
  const float black[3] = {table[0][0], table[1][0], table[2][0]};
  // Output column j shows input column j + shift, or, mirrored, 31 - j + shift.
  const int shift = crop.left - kPad;
  const int first = std::max(0, -shift), last = std::min(kSize, kSize - shift);
  for (int i = 0; i < kSize; ++i) {
    float* const row = x.data() + i * kSize * 3;
    const int source_row = i + crop.top - kPad;
    const bool inside = source_row >= 0 && source_row < kSize;
    const auto put_black = [&](int from, int to) {
      for (int column = from; column < to; ++column) {
        float* const pixel = row + (crop.mirror ? kSize - 1 - column : column) * 3;
        std::copy_n(black, 3, pixel);
      }
    };
    if (!inside) {
      put_black(0, kSize);
      continue;
    }
    put_black(0, first);
    put_black(last, kSize);
    const int source = source_row * kSize + shift;
    const int step = crop.mirror ? -3 : 3;
    float* pixel = row + (crop.mirror ? kSize - 1 - first : first) * 3;
    for (int column = first; column < last; ++column, pixel += step) {
      pixel[0] = table[0][red[source + column]];
      pixel[1] = table[1][green[source + column]];
      pixel[2] = table[2][blue[source + column]];
    }
  }
}

void EpochBatches::Free::operator()(float* pointer) const { std::free(pointer); }

EpochBatches::EpochBatches(const apps::ImageDataset& dataset, const Options& options)
    : dataset_(dataset),
      options_(options),
      batches_(count(options.images, options.batch_size)),
      table_(normalize_table(dataset)),
      order_(epoch_order(options.seed, options.epoch, options.images)),
      prepared_(options.first_batch),
      released_(options.first_batch),
      next_(options.first_batch) {
  const auto images =
      static_cast<std::size_t>(std::min(options.batch_size, options.images));  // no part is larger
  for (Buffer& buffer : buffers_) {
    const std::size_t bytes = images * apps::ImageDataset::kImageBytes * sizeof(float);  // a multiple of 64
    buffer.pixels.reset(static_cast<float*>(std::aligned_alloc(kAlignment, bytes)));
    if (buffer.pixels == nullptr) throw std::bad_alloc();
    buffer.labels.resize(images);
  }
  thread_ = std::thread([this] { work(); });
}

EpochBatches::~EpochBatches() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void EpochBatches::prepare(std::int64_t index, Buffer& buffer) const {
  const std::int64_t first = index * options_.batch_size;
  const std::int64_t whole = std::min(options_.batch_size, options_.images - first);
  const std::int64_t begin = first + options_.part.begin(whole);
  const std::int64_t images = options_.part.size(whole);
  constexpr auto kImage = static_cast<std::size_t>(apps::ImageDataset::kImageBytes);
  buffer.batch = {.images = images,
                  .pixels = {buffer.pixels.get(), static_cast<std::size_t>(images) * kImage},
                  .labels = std::span(buffer.labels).first(static_cast<std::size_t>(images))};
  for (std::int64_t i = 0; i < images; ++i) {
    const std::int64_t position = begin + i;
    const std::uint32_t source = order_[static_cast<std::size_t>(position)];
    buffer.batch.labels[static_cast<std::size_t>(i)] = dataset_.labels[source];
    augment(dataset_.image(source), random_crop(options_.seed, options_.epoch, position), table_,
            buffer.batch.pixels.subspan(static_cast<std::size_t>(i) * kImage, kImage));
  }
}

void EpochBatches::work() {
  for (std::int64_t index = options_.first_batch; index < batches_; ++index) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stop_ || index - released_ < kBuffers; });
      if (stop_) return;
    }
    prepare(index, buffers_[static_cast<std::size_t>(index % kBuffers)]);
    {
      const std::lock_guard lock(mutex_);
      prepared_ = index + 1;
    }
    changed_.notify_all();
  }
}

const Batch* EpochBatches::next() {
  std::unique_lock lock(mutex_);
  released_ = next_;  // everything before the batch that is handed out now
  changed_.notify_all();
  if (next_ >= batches_) return nullptr;
  changed_.wait(lock, [&] { return prepared_ > next_; });
  return &buffers_[static_cast<std::size_t>(next_++ % kBuffers)].batch;
}

}  // namespace trit::train
