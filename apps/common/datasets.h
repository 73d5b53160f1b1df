// SPDX-License-Identifier: MIT
//
// Image classification data sets, torch-free: CIFAR-10 (official binary layout), Fashion-MNIST (IDX files,
// padded to 32x32 and repeated to three channels) and a procedurally drawn ten-class set.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace trit::apps {

enum class DatasetName : std::uint8_t { cifar10, fashion_mnist, drawn };
enum class Split : std::uint8_t { train, test };

/// "cifar10", "fashion-mnist", "drawn".
std::string_view name_of(DatasetName name);
/// The inverse; throws trit::Error that lists the names.
DatasetName dataset_from_name(std::string_view name);
/// The names of the labels 0..9.
const std::array<std::string, 10>& class_names(DatasetName name);

/// Images of 3 x 32 x 32 bytes, channel-major, and their labels.
struct ImageDataset {
  static constexpr std::int64_t kChannels = 3, kHeight = 32, kWidth = 32;
  static constexpr std::int64_t kImageBytes = kChannels * kHeight * kWidth;

  DatasetName name = DatasetName::drawn;
  std::vector<std::uint8_t> pixels;  // [count, 3, 32, 32]
  std::vector<std::uint8_t> labels;  // [count], 0..9
  std::array<std::string, 10> classes;
  std::array<float, 3> mean{}, std{};  // of pixel / 255, per channel, for the network's input

  std::int64_t count() const { return static_cast<std::int64_t>(labels.size()); }
  std::span<const std::uint8_t> image(std::int64_t index) const;
};

/// Reads a split. `folder` holds the files of `name`, or the folder that holds them (cifar-10-batches-bin/,
/// fashion-mnist/). `drawn` ignores it: it is generated from a fixed seed (10,000 train, 2,000 test images).
/// Throws trit::Error, with the file and the offset, for a missing file, a wrong size or a label out of range.
ImageDataset load_dataset(DatasetName name, Split split, const std::filesystem::path& folder);

/// The default folder of a data set: for cifar10 the environment variable TRIT_CIFAR10, otherwise
/// <cache>/trit/<name>, where <cache> is $XDG_CACHE_HOME or ~/.cache.
std::filesystem::path default_folder(DatasetName name);

/// x[i] = (pixels[i] / 255 - mean) / std in float32, the input of a model trained on `dataset`; x is
/// [images, 3, 32, 32]. Throws trit::Error for images outside the data set or an x of another size.
void normalize(const ImageDataset& dataset, std::int64_t first, std::int64_t images, std::span<float> x);

}  // namespace trit::apps
