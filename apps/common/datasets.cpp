// SPDX-License-Identifier: MIT
//
// What all data sets share: names, folders, normalisation.
#include "common/datasets.h"

#include <algorithm>
#include <cstdlib>

#include "common/dataset_readers.h"
#include "trit/error.h"

namespace trit::apps {
namespace {

struct Source {
  DatasetName dataset;
  std::string_view name;
  const std::array<std::string, 10>& (*classes)();
  ImageDataset (*read)(Split split, const std::filesystem::path& folder);
};
constexpr std::array<Source, 3> kSources{
    {{DatasetName::cifar10, "cifar10", cifar10_classes, read_cifar10},
     {DatasetName::fashion_mnist, "fashion-mnist", fashion_mnist_classes, read_fashion_mnist},
     {DatasetName::drawn, "drawn", drawn_classes,
      [](Split split, const std::filesystem::path&) { return draw_dataset(split); }}}};

const Source& source_of(DatasetName dataset) {
  return *std::ranges::find(kSources, dataset, &Source::dataset);
}

std::filesystem::path environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

std::string_view name_of(DatasetName name) { return source_of(name).name; }

DatasetName dataset_from_name(std::string_view name) {
  const auto* found = std::ranges::find(kSources, name, &Source::name);
  if (found == kSources.end()) {
    throw Error("unknown data set '" + std::string(name) + "', wanted cifar10, fashion-mnist or drawn");
  }
  return found->dataset;
}

const std::array<std::string, 10>& class_names(DatasetName name) { return source_of(name).classes(); }

std::span<const std::uint8_t> ImageDataset::image(std::int64_t index) const {
  return std::span(pixels).subspan(static_cast<std::size_t>(index * kImageBytes), kImageBytes);
}

ImageDataset load_dataset(DatasetName name, Split split, const std::filesystem::path& folder) {
  ImageDataset dataset = source_of(name).read(split, folder);
  dataset.name = name;
  dataset.classes = class_names(name);
  return dataset;
}

std::filesystem::path default_folder(DatasetName name) {
  if (name == DatasetName::cifar10 && !environment("TRIT_CIFAR10").empty()) {
    return environment("TRIT_CIFAR10");
  }
  std::filesystem::path cache = environment("XDG_CACHE_HOME");
  if (!cache.is_absolute()) {  // relative paths are ignored, as the XDG base directory specification demands
    cache = environment("HOME") / ".cache";
  }
  return cache / "trit" / name_of(name);
}

void normalize(const ImageDataset& dataset, std::int64_t first, std::int64_t images, std::span<float> x) {
  if (first < 0 || images < 0 || first > dataset.count() - images ||
      x.size() != static_cast<std::size_t>(images * ImageDataset::kImageBytes)) {
    throw Error("normalize: images " + std::to_string(first) + ".." + std::to_string(first + images) +
                " of " + std::to_string(dataset.count()) + " into " + std::to_string(x.size()) + " floats");
  }
  // A byte has 256 values: a table per channel replaces the two divisions and gives the same floats.
  std::array<std::array<float, 256>, ImageDataset::kChannels> table;
  for (std::size_t channel = 0; channel < table.size(); ++channel) {
    for (std::size_t value = 0; value < 256; ++value) {
      table[channel][value] =
          (static_cast<float>(value) / 255.0F - dataset.mean[channel]) / dataset.std[channel];
    }
  }
  constexpr std::size_t kPlane = ImageDataset::kHeight * ImageDataset::kWidth;
  const std::uint8_t* pixel = dataset.pixels.data() + first * ImageDataset::kImageBytes;
  for (std::size_t plane = 0; plane < x.size() / kPlane; ++plane) {
    const auto& values = table[plane % table.size()];
    for (std::size_t i = plane * kPlane; i < (plane + 1) * kPlane; ++i) {
      x[i] = values[pixel[i]];
    }
  }
}

}  // namespace trit::apps
