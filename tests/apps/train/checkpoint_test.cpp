// SPDX-License-Identifier: MIT
#include "train_cifar10/checkpoint.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "trit/error.h"

namespace trit::train {
namespace {

class CheckpointTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::remove_all(folder);
    std::filesystem::create_directories(folder);
  }
  void TearDown() override { std::filesystem::remove_all(folder); }
  const std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) / ("trit-checkpoint-test-" + std::to_string(getpid()));
};

Checkpoint sample(std::int64_t step) {
  torch::manual_seed(static_cast<std::uint64_t>(step));
  return {
      .state = {{"step", step}, {"third", 1.0 / 3.0}, {"text", "naïve \"quotes\""}},
      .tensors = {{"a", torch::randn({5, 7})},
                  {"channels last", torch::randn({2, 3, 4, 4}).contiguous(at::MemoryFormat::ChannelsLast)},
                  {"bytes", torch::randint(0, 256, {11}).to(torch::kUInt8)},
                  {"scalar", torch::tensor(2.5F)},
                  {"counts", torch::arange(4)}}};
}

void expect_equal(const Checkpoint& a, const Checkpoint& b) {
  EXPECT_EQ(a.state, b.state);
  ASSERT_EQ(a.tensors.size(), b.tensors.size());
  for (const auto& [name, tensor] : a.tensors) EXPECT_TRUE(torch::equal(tensor, b.tensors.at(name))) << name;
}

std::vector<char> bytes_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
void write_bytes(const std::filesystem::path& path, const std::vector<char>& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

TEST_F(CheckpointTest, ReadsBackWhatWasWritten) {
  save_checkpoint(folder / "c", sample(1));
  expect_equal(load_checkpoint(folder / "c"), sample(1));
}

TEST_F(CheckpointTest, DetectsEveryFlippedBitAndEveryTruncation) {
  save_checkpoint(folder / "c", sample(1));
  const std::vector<char> whole = bytes_of(folder / "c");
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  for (int i = 0; i < 400; ++i) {
    std::vector<char> damaged = whole;
    const std::size_t place = random() % damaged.size();
    damaged[place] = static_cast<char>(damaged[place] ^ (1 << (random() % 8)));
    write_bytes(folder / "d", damaged);
    // A bit of the header's padding or of JSON's layout may change without a change of meaning: then the load
    // succeeds with the very same content.
    try {
      expect_equal(load_checkpoint(folder / "d"), sample(1));
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("/d"), std::string::npos) << error.what();
    }
    ASSERT_FALSE(HasFailure()) << "seed " << seed << ", byte " << place;
    damaged = whole;
    damaged.resize(random() % whole.size());
    write_bytes(folder / "d", damaged);
    EXPECT_THROW(load_checkpoint(folder / "d"), Error) << "seed " << seed;
  }
}

TEST_F(CheckpointTest, KeepsTheLastTwo) {
  const CheckpointStore store(folder);
  for (const std::int64_t step : {5, 50, 500, 5000}) store.save(step, sample(step));
  ASSERT_EQ(store.files().size(), 2U);
  std::filesystem::remove(store.files()[1]);
  const auto newest = store.load_newest([](const std::string& text) { FAIL() << text; });
  if (!newest) FAIL() << "no checkpoint";
  expect_equal(*newest, sample(500));
}

TEST_F(CheckpointTest, FallsBackToThePreviousWithAWarning) {
  const CheckpointStore store(folder);
  EXPECT_FALSE(store.load_newest([](const std::string&) { FAIL(); }).has_value());
  for (const std::int64_t step : {1, 2}) store.save(step, sample(step));
  std::vector<char> bytes = bytes_of(store.files()[1]);
  bytes[bytes.size() - 3] ^= 1;  // in a tensor: only the checksum can tell
  write_bytes(store.files()[1], bytes);
  std::string warning;
  const auto newest = store.load_newest([&](const std::string& text) { warning = text; });
  if (!newest) FAIL() << "no checkpoint";
  expect_equal(*newest, sample(1));
  EXPECT_NE(warning.find("checkpoint-0000000002"), std::string::npos) << warning;

  write_bytes(store.files()[0], {'x'});
  EXPECT_THROW((void)store.load_newest([](const std::string&) {}), Error);
}

}  // namespace
}  // namespace trit::train
