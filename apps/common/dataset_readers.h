// SPDX-License-Identifier: MIT
//
// The readers behind load_dataset, one file each: cifar10.cpp, fashion_mnist.cpp, drawn.cpp. Each fills
// pixels, labels, mean and std; load_dataset adds name and classes.
#pragma once

#include <filesystem>
#include <fstream>
#include <span>

#include "common/datasets.h"

namespace trit::apps {

ImageDataset read_cifar10(Split split, const std::filesystem::path& folder);
ImageDataset read_fashion_mnist(Split split, const std::filesystem::path& folder);
ImageDataset draw_dataset(Split split);

const std::array<std::string, 10>& cifar10_classes();
const std::array<std::string, 10>& fashion_mnist_classes();
const std::array<std::string, 10>& drawn_classes();

/// A data file of a known size, read sequentially. Errors name the file and the offset.
class DataFile {
 public:
  /// Throws trit::Error unless `path` is a readable file of exactly `size` bytes.
  DataFile(const std::filesystem::path& path, std::uint64_t size);
  /// Fills `bytes` with the next bytes.
  void read(std::span<std::uint8_t> bytes);
  /// Offset of the next byte.
  std::uint64_t offset() const { return offset_; }
  /// Throws trit::Error("<file>: <what> at offset <offset>").
  [[noreturn]] void fail(const std::string& what, std::uint64_t offset) const;

 private:
  std::filesystem::path path_;
  std::ifstream stream_;
  std::uint64_t offset_ = 0;
};

/// `folder`, or `folder`/`inner` if that holds `file` and `folder` does not. Throws trit::Error, with both
/// paths, if neither does.
std::filesystem::path find_data_folder(const std::filesystem::path& folder, const std::string& inner,
                                       const std::string& file);

}  // namespace trit::apps
