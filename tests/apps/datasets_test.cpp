// SPDX-License-Identifier: MIT
//
// The data sets: what is read, and what is refused with which words.
#include "common/datasets.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>

#include "io/test_folder.h"
#include "trit/crc32c.h"
#include "trit/error.h"

namespace trit::apps {
namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<std::uint8_t>;

class Datasets : public ::testing::Test {
 protected:
  void write(const std::string& name, const Bytes& bytes) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }

  /// The message of the Error that loading throws.
  std::string refusal(DatasetName name, Split split) const {
    try {
      load_dataset(name, split, folder_);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  const test::TestFolder temporary_;
  const fs::path& folder_ = temporary_.path();
};

void expect_in(const std::string& text, const std::string& message) {
  EXPECT_NE(message.find(text), std::string::npos) << "wanted '" << text << "' in '" << message << "'";
}

constexpr std::size_t kRecord = 3073;
constexpr std::size_t kRecords = 10000;

// Record i: label (i + shift) % 10, pixel p of channel c: i + 3c + p.
Bytes cifar_file(std::size_t shift) {
  Bytes bytes(kRecords * kRecord);
  for (std::size_t i = 0; i < kRecords; ++i) {
    bytes[i * kRecord] = static_cast<std::uint8_t>((i + shift) % 10);
    for (std::size_t p = 0; p < 3072; ++p) {
      bytes[i * kRecord + 1 + p] = static_cast<std::uint8_t>(i + 3 * (p / 1024) + p % 1024);
    }
  }
  return bytes;
}

TEST_F(Datasets, Cifar10OfBothLayouts) {
  for (const std::string prefix : {"", "cifar-10-batches-bin/"}) {
    for (std::size_t file = 1; file <= 5; ++file) {
      write(prefix + "data_batch_" + std::to_string(file) + ".bin", cifar_file(file));
    }
    write(prefix + "test_batch.bin", cifar_file(0));
    const ImageDataset train = load_dataset(DatasetName::cifar10, Split::train, folder_);
    ASSERT_EQ(train.count(), 50000);
    ASSERT_EQ(train.pixels.size(), 50000U * 3072U);
    for (std::size_t i = 0; i < 50000; i += 777) {
      const std::size_t record = i % kRecords;
      EXPECT_EQ(train.labels[i], (record + i / kRecords + 1) % 10);
      for (const std::size_t p : {0U, 1023U, 1024U, 3071U}) {
        EXPECT_EQ(train.image(static_cast<std::int64_t>(i))[p],
                  static_cast<std::uint8_t>(record + 3 * (p / 1024) + p % 1024));
      }
    }
    const ImageDataset test = load_dataset(DatasetName::cifar10, Split::test, folder_);
    EXPECT_EQ(test.count(), 10000);
    EXPECT_EQ(test.labels[11], 1);
    EXPECT_EQ(test.classes[9], "truck");
    EXPECT_EQ(test.mean[0], 0.4914F);
    EXPECT_EQ(test.std[2], 0.2616F);
    fs::remove_all(folder_);
    fs::create_directory(folder_);
  }
}

TEST_F(Datasets, Cifar10NamesFileAndOffset) {
  Bytes bytes = cifar_file(0);
  expect_in("test_batch.bin", refusal(DatasetName::cifar10, Split::test));
  expect_in(folder_.string(), refusal(DatasetName::cifar10, Split::test));

  bytes[4321 * kRecord] = 10;
  write("test_batch.bin", bytes);
  expect_in("test_batch.bin: label 10 of record 4321", refusal(DatasetName::cifar10, Split::test));
  expect_in("offset " + std::to_string(4321 * kRecord), refusal(DatasetName::cifar10, Split::test));

  bytes[4321 * kRecord] = 9;
  bytes.pop_back();
  write("test_batch.bin", bytes);
  expect_in("30729999 bytes, wanted 30730000", refusal(DatasetName::cifar10, Split::test));
  expect_in("offset 30729999", refusal(DatasetName::cifar10, Split::test));

  bytes.resize(kRecords * kRecord + 1);
  write("test_batch.bin", bytes);
  expect_in("30730001 bytes, wanted 30730000", refusal(DatasetName::cifar10, Split::test));

  write("test_batch.bin", Bytes(kRecord * 100));  // a whole number of records is still not the file
  expect_in("wanted 30730000", refusal(DatasetName::cifar10, Split::test));

  write("data_batch_1.bin", cifar_file(1));
  expect_in("data_batch_2.bin", refusal(DatasetName::cifar10, Split::train));
}

TEST_F(Datasets, Cifar10RealImages) {
  const char* folder = std::getenv("TRIT_CIFAR10");
  if (folder == nullptr || *folder == '\0') {
    GTEST_SKIP() << "TRIT_CIFAR10 is not set";
  }
  const ImageDataset test =
      load_dataset(DatasetName::cifar10, Split::test, default_folder(DatasetName::cifar10));
  std::array<int, 10> counts{};
  for (const std::uint8_t label : test.labels) {
    ++counts[label];
  }
  for (const int count : counts) {
    EXPECT_EQ(count, 1000);
  }
}

Bytes big_endian(std::initializer_list<std::uint32_t> words) {
  Bytes bytes;
  for (const std::uint32_t word : words) {
    for (int shift = 24; shift >= 0; shift -= 8) {
      bytes.push_back(static_cast<std::uint8_t>(word >> shift));
    }
  }
  return bytes;
}

TEST_F(Datasets, FashionMnist) {
  constexpr std::uint32_t kCount = 10000;
  Bytes images = big_endian({0x803, kCount, 28, 28});
  Bytes labels = big_endian({0x801, kCount});
  for (std::uint32_t i = 0; i < kCount; ++i) {
    labels.push_back(static_cast<std::uint8_t>(i % 10));
    for (std::uint32_t p = 0; p < 784; ++p) {
      images.push_back(static_cast<std::uint8_t>(1 + (i + p) % 255));
    }
  }
  const std::string image_file = "t10k-images-idx3-ubyte";
  const std::string label_file = "t10k-labels-idx1-ubyte";
  write("fashion-mnist/" + image_file, images);
  write("fashion-mnist/" + label_file, labels);
  const ImageDataset test = load_dataset(DatasetName::fashion_mnist, Split::test, folder_);
  ASSERT_EQ(test.count(), 10000);
  EXPECT_EQ(test.labels[23], 3);
  EXPECT_EQ(test.classes[9], "ankle-boot");
  for (const std::int64_t i : {0, 1, 9999}) {
    for (std::int64_t p = 0; p < 3072; ++p) {
      const std::int64_t y = p % 1024 / 32 - 2, x = p % 32 - 2;
      const bool padding = x < 0 || y < 0 || x >= 28 || y >= 28;
      ASSERT_EQ(test.image(i)[static_cast<std::size_t>(p)], padding ? 0 : 1 + (i + 28 * y + x) % 255)
          << i << " " << p;
    }
  }

  const auto with = [&](const std::string& name, Bytes bytes, const std::function<void(Bytes&)>& damage) {
    const Bytes whole = bytes;
    damage(bytes);
    write("fashion-mnist/" + name, bytes);
    const std::string message = refusal(DatasetName::fashion_mnist, Split::test);
    write("fashion-mnist/" + name, whole);
    expect_in(name, message);
    return message;
  };
  expect_in("magic 2049, wanted 2051", with(image_file, images, [](Bytes& b) { b[3] = 1; }));
  expect_in("rows 29, wanted 28, at offset 8", with(image_file, images, [](Bytes& b) { b[11] = 29; }));
  expect_in("wanted 7840016", with(image_file, images, [](Bytes& b) { b.pop_back(); }));
  expect_in("label 200, wanted 0..9, at offset 15", with(label_file, labels, [](Bytes& b) { b[15] = 200; }));
  expect_in("number of labels", with(label_file, labels, [](Bytes& b) { b[7] ^= 1; }));
  expect_in("wanted 10008", with(label_file, labels, [](Bytes& b) { b.push_back(0); }));
  expect_in("train-images-idx3-ubyte", refusal(DatasetName::fashion_mnist, Split::train));
  write("train-images-idx3-ubyte.gz", {});
  expect_in("gunzip", refusal(DatasetName::fashion_mnist, Split::train));
}

TEST_F(Datasets, DrawnIsTheSameOnEveryMachine) {
  const ImageDataset train = load_dataset(DatasetName::drawn, Split::train, "");
  const ImageDataset test = load_dataset(DatasetName::drawn, Split::test, "");
  EXPECT_EQ(train.count(), 10000);
  EXPECT_EQ(test.count(), 2000);
  EXPECT_EQ(crc32c(std::as_bytes(std::span(train.pixels))), 0xb861e2d8U);
  EXPECT_EQ(crc32c(std::as_bytes(std::span(test.pixels))), 0x1c52b5adU);
  for (std::int64_t i = 0; i < test.count(); ++i) {
    EXPECT_EQ(test.labels[static_cast<std::size_t>(i)], i % 10);
  }
}

TEST_F(Datasets, MeanAndStdAreThoseOfTheImages) {
  const ImageDataset train = load_dataset(DatasetName::drawn, Split::train, "");
  for (std::size_t channel = 0; channel < 3; ++channel) {
    double sum = 0, squares = 0;
    for (std::int64_t i = 0; i < train.count(); ++i) {
      for (const std::uint8_t pixel : train.image(i).subspan(channel * 1024, 1024)) {
        sum += pixel / 255.0;
        squares += pixel / 255.0 * (pixel / 255.0);
      }
    }
    const double count = 1024.0 * static_cast<double>(train.count());
    EXPECT_NEAR(sum / count, train.mean[channel], 1e-4);
    EXPECT_NEAR(std::sqrt(squares / count - sum / count * (sum / count)), train.std[channel], 1e-4);
  }
}

TEST_F(Datasets, Normalize) {
  const ImageDataset test = load_dataset(DatasetName::drawn, Split::test, "");
  std::vector<float> x(3 * 3072);
  normalize(test, 5, 3, x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t channel = i % 3072 / 1024;
    ASSERT_EQ(x[i], (static_cast<float>(test.pixels[5 * 3072 + i]) / 255.0F - test.mean[channel]) /
                        test.std[channel]);
  }
  EXPECT_THROW(normalize(test, 1998, 3, x), Error);
  EXPECT_THROW(normalize(test, -1, 3, x), Error);
  EXPECT_THROW(normalize(test, 0, 2, x), Error);
  normalize(test, 2000, 0, {});
}

TEST(DatasetNames, RoundTrip) {
  for (const DatasetName name : {DatasetName::cifar10, DatasetName::fashion_mnist, DatasetName::drawn}) {
    EXPECT_EQ(dataset_from_name(name_of(name)), name);
  }
  EXPECT_THROW(dataset_from_name("imagenet"), Error);
}

TEST(DatasetNames, DefaultFolder) {
  const auto with = [](const char* cifar, const char* cache, DatasetName name) {
    setenv("TRIT_CIFAR10", cifar, 1);
    setenv("XDG_CACHE_HOME", cache, 1);
    setenv("HOME", "/home/someone", 1);
    return default_folder(name).string();
  };
  const std::string keep = std::getenv("TRIT_CIFAR10") == nullptr ? "" : std::getenv("TRIT_CIFAR10");
  EXPECT_EQ(with("/data", "", DatasetName::cifar10), "/data");
  EXPECT_EQ(with("", "", DatasetName::cifar10), "/home/someone/.cache/trit/cifar10");
  EXPECT_EQ(with("", "/cache", DatasetName::cifar10), "/cache/trit/cifar10");
  EXPECT_EQ(with("/data", "relative", DatasetName::fashion_mnist), "/home/someone/.cache/trit/fashion-mnist");
  setenv("TRIT_CIFAR10", keep.c_str(), 1);
}

}  // namespace
}  // namespace trit::apps
