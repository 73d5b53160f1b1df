// SPDX-License-Identifier: MIT
//
// Fashion-MNIST (https://github.com/zalandoresearch/fashion-mnist), raw IDX files: big-endian words (magic,
// then one size per dimension), then bytes. Images are 28x28 grey. Two black pixels are added on each side and
// the grey value is copied to three channels, so that a network for CIFAR-10 accepts them.
#include <algorithm>
#include <system_error>

#include "common/dataset_readers.h"
#include "trit/error.h"

namespace trit::apps {
namespace {

constexpr std::uint32_t kImageMagic = 0x803;  // bytes (8), three dimensions
constexpr std::uint32_t kLabelMagic = 0x801;  // bytes (8), one dimension
constexpr std::uint32_t kSide = 28;
constexpr std::size_t kPadding = (ImageDataset::kWidth - kSide) / 2;

// Reads one word of the header, which must be `wanted`.
void expect(DataFile& file, const char* what, std::uint32_t wanted) {
  std::array<std::uint8_t, 4> bytes{};
  const std::uint64_t offset = file.offset();
  file.read(bytes);
  const std::uint32_t found = (std::uint32_t{bytes[0]} << 24) | (std::uint32_t{bytes[1]} << 16) |
                              (std::uint32_t{bytes[2]} << 8) | bytes[3];
  if (found != wanted) {
    file.fail(std::string(what) + " " + std::to_string(found) + ", wanted " + std::to_string(wanted) + ",",
              offset);
  }
}

void read_labels(const std::filesystem::path& path, std::uint32_t images, ImageDataset& dataset) {
  DataFile file(path, 8 + std::uint64_t{images});
  expect(file, "magic", kLabelMagic);
  expect(file, "number of labels", images);
  const std::uint64_t start = file.offset();
  dataset.labels.resize(images);
  file.read(dataset.labels);
  const auto bad =
      std::find_if(dataset.labels.begin(), dataset.labels.end(), [](auto label) { return label > 9; });
  if (bad != dataset.labels.end()) {
    file.fail("label " + std::to_string(*bad) + ", wanted 0..9,",
              start + static_cast<std::uint64_t>(bad - dataset.labels.begin()));
  }
}

void read_images(const std::filesystem::path& path, std::uint32_t images, ImageDataset& dataset) {
  DataFile file(path, 16 + std::uint64_t{images} * kSide * kSide);
  expect(file, "magic", kImageMagic);
  expect(file, "number of images", images);
  expect(file, "rows", kSide);
  expect(file, "columns", kSide);
  constexpr std::size_t kPlane = ImageDataset::kHeight * ImageDataset::kWidth;
  dataset.pixels.resize(static_cast<std::size_t>(images) * ImageDataset::kImageBytes);
  std::array<std::uint8_t, kSide * kSide> grey{};
  for (std::uint32_t image = 0; image < images; ++image) {
    file.read(grey);
    std::uint8_t* first = &dataset.pixels[image * static_cast<std::size_t>(ImageDataset::kImageBytes)];
    for (std::size_t y = 0; y < kSide; ++y) {
      std::copy_n(&grey[y * kSide], kSide, first + (y + kPadding) * ImageDataset::kWidth + kPadding);
    }
    std::copy_n(first, kPlane, first + kPlane);
    std::copy_n(first, kPlane, first + 2 * kPlane);
  }
}

}  // namespace

const std::array<std::string, 10>& fashion_mnist_classes() {
  static const std::array<std::string, 10> names{"t-shirt", "trouser", "pullover", "dress", "coat",
                                                 "sandal",  "shirt",   "sneaker",  "bag",   "ankle-boot"};
  return names;
}

ImageDataset read_fashion_mnist(Split split, const std::filesystem::path& folder) {
  const std::string prefix = split == Split::train ? "train" : "t10k";
  const std::string image_file = prefix + "-images-idx3-ubyte";
  std::error_code error;
  for (const auto& place : {folder, folder / "fashion-mnist"}) {
    if (std::filesystem::exists(place / (image_file + ".gz"), error) &&
        !std::filesystem::exists(place / image_file, error)) {
      throw Error((place / (image_file + ".gz")).string() + ": compressed; unpack it first (gunzip -k)");
    }
  }
  const std::filesystem::path inner = find_data_folder(folder, "fashion-mnist", image_file);
  const std::uint32_t images = split == Split::train ? 60000 : 10000;
  ImageDataset dataset;
  // Of the 60,000 training images after padding; the three channels are equal.
  dataset.mean = {0.2190F, 0.2190F, 0.2190F};
  dataset.std = {0.3318F, 0.3318F, 0.3318F};
  read_labels(inner / (prefix + "-labels-idx1-ubyte"), images, dataset);
  read_images(inner / image_file, images, dataset);
  return dataset;
}

}  // namespace trit::apps
