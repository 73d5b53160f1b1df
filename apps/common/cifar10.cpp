// SPDX-License-Identifier: MIT
//
// CIFAR-10, the official binary layout (https://www.cs.toronto.edu/~kriz/cifar.html): six files of 10,000
// records; a record is 3073 bytes = label, then 1024 red, 1024 green, 1024 blue, row-major 32x32.

#include "common/dataset_readers.h"

namespace trit::apps {
namespace {

constexpr std::int64_t kRecords = 10000;
constexpr std::int64_t kRecordBytes = 1 + ImageDataset::kImageBytes;
static_assert(kRecords * kRecordBytes == 30'730'000, "the size of each file of the official archive");
constexpr std::int64_t kRecordsPerRead = 1000;  // 3 MB: the whole file is never in memory

void append(const std::filesystem::path& path, ImageDataset& dataset) {
  DataFile file(path, kRecords * kRecordBytes);
  std::vector<std::uint8_t> buffer(kRecordsPerRead * kRecordBytes);
  for (std::int64_t record = 0; record < kRecords; ++record) {
    if (record % kRecordsPerRead == 0) {
      file.read(buffer);
    }
    const std::uint8_t* bytes = &buffer[static_cast<std::size_t>(record % kRecordsPerRead * kRecordBytes)];
    if (bytes[0] > 9) {
      file.fail(
          "label " + std::to_string(bytes[0]) + " of record " + std::to_string(record) + ", wanted 0..9,",
          static_cast<std::uint64_t>(record * kRecordBytes));
    }
    dataset.labels.push_back(bytes[0]);
    dataset.pixels.insert(dataset.pixels.end(), bytes + 1, bytes + kRecordBytes);
  }
}

}  // namespace

const std::array<std::string, 10>& cifar10_classes() {
  static const std::array<std::string, 10> names{"airplane", "automobile", "bird",  "cat",  "deer",
                                                 "dog",      "frog",       "horse", "ship", "truck"};
  return names;
}

ImageDataset read_cifar10(Split split, const std::filesystem::path& folder) {
  std::vector<std::string> files{"test_batch.bin"};
  if (split == Split::train) {
    files = {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin",
             "data_batch_5.bin"};
  }
  const std::filesystem::path inner = find_data_folder(folder, "cifar-10-batches-bin", files.front());
  ImageDataset dataset;
  // Of the 50,000 training images.
  dataset.mean = {0.4914F, 0.4822F, 0.4465F};
  dataset.std = {0.2470F, 0.2435F, 0.2616F};
  const auto images = static_cast<std::size_t>(kRecords) * files.size();
  dataset.labels.reserve(images);
  dataset.pixels.reserve(images * ImageDataset::kImageBytes);
  for (const std::string& file : files) {
    append(inner / file, dataset);
  }
  return dataset;
}

}  // namespace trit::apps
