// SPDX-License-Identifier: MIT
#include "train_cifar10/data.h"

#include <fmt/format.h>

#include "train_cifar10/batches.h"
#include "trit/crc32c.h"
#include "trit/error.h"

namespace trit::train {
namespace {

apps::ImageDataset load(const TrainOptions& options, apps::Split split) {
  const std::filesystem::path folder =
      options.data.empty() ? apps::default_folder(options.dataset) : options.data;
  try {
    return apps::load_dataset(options.dataset, split, folder);
  } catch (const Error& error) {
    throw Error(fmt::format("{}\n{}: `make data` downloads it; --data FOLDER names a copy", error.what(),
                            apps::name_of(options.dataset)));
  }
}

}  // namespace

TrainingData load_data(const TrainOptions& options) {
  TrainingData data{.train = load(options, apps::Split::train),
                    .test = load(options, apps::Split::test),
                    .images = options.train_images,
                    .batches = 0,
                    .fingerprint = {}};
  if (data.images > data.train.count()) {
    throw Error(fmt::format("--train-images {}: {} has {}", data.images, apps::name_of(options.dataset),
                            data.train.count()));
  }
  if (data.images == 0) data.images = data.train.count();
  data.batches = EpochBatches::count(data.images, options.batch_size);
  data.fingerprint = fmt::format("{:08x}", crc32c(std::as_bytes(std::span(data.train.labels)),
                                                  crc32c(std::as_bytes(std::span(data.train.pixels)))));
  return data;
}

}  // namespace trit::train
