// SPDX-License-Identifier: MIT
//
// What opening a file costs in memory: at most 8 times its headers' bytes and 1 MB, whatever it holds; and
// next to nothing for a header that claims more than the file has. Every allocation of this program is
// counted.
#include <gtest/gtest.h>
#include <malloc.h>

#include <cstdlib>
#include <new>
#include <string>

#include "io/gguf_builder.h"
#include "io/test_folder.h"
#include "trit/io.h"

namespace {

std::size_t live_bytes = 0;
std::size_t peak_bytes = 0;

void* counted(std::size_t size) {
  void* const memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  live_bytes += ::malloc_usable_size(memory);
  peak_bytes = std::max(peak_bytes, live_bytes);
  return memory;
}

void uncounted(void* memory) noexcept {
  if (memory != nullptr) {
    live_bytes -= ::malloc_usable_size(memory);
    std::free(memory);
  }
}

}  // namespace

void* operator new(std::size_t size) { return counted(size); }
void* operator new[](std::size_t size) { return counted(size); }
void operator delete(void* memory) noexcept { uncounted(memory); }
void operator delete[](void* memory) noexcept { uncounted(memory); }
void operator delete(void* memory, std::size_t) noexcept { uncounted(memory); }
void operator delete[](void* memory, std::size_t) noexcept { uncounted(memory); }

namespace trit::io {
namespace {

using test::GgufBuilder;
using test::TestFolder;
using test::write_file;

constexpr std::size_t kMegabyte = std::size_t{1} << 20;
constexpr int kTensors = 20'000;
const OpenOptions kOptions{.scale_convention = ScaleConvention::multiply, .config_wins = true};

/// The most memory that was taken at once while `path` was opened.
std::size_t memory_of_opening(const std::filesystem::path& path) {
  const std::size_t before = live_bytes;
  peak_bytes = live_bytes;
  try {
    open_checkpoint(path, kOptions);
  } catch (const Error&) {
  }
  return peak_bytes - before;
}

/// A safetensors header made of entries, and its data.
class Builder {
 public:
  explicit Builder(std::string metadata = "") : header_("{" + std::move(metadata)) {}
  Builder& add(const std::string& name, const char* dtype, const char* shape, std::size_t bytes) {
    header_ += std::string(header_.size() == 1 ? "" : ",") + '"' + name + R"(":{"dtype":")" + dtype +
               R"(","shape":)" + shape + R"(,"data_offsets":[)" + std::to_string(data_) + ',' +
               std::to_string(data_ + bytes) + "]}";
    data_ += bytes;
    return *this;
  }
  std::size_t header_bytes() const { return header_.size() + 1; }
  void save(const std::filesystem::path& path) const {
    write_file(path,
               GgufBuilder::number(std::uint64_t{header_bytes()}) + header_ + "}" + std::string(data_, '\0'));
  }

 private:
  std::string header_;
  std::size_t data_ = 0;
};

void expect_within(const std::filesystem::path& path, std::size_t header_bytes) {
  ASSERT_NO_THROW(open_checkpoint(path, kOptions));
  const std::size_t memory = memory_of_opening(path);
  EXPECT_LE(memory, 8 * header_bytes + kMegabyte)
      << static_cast<double>(memory) / static_cast<double>(header_bytes) << " times the header";
}

TEST(Memory, PlainSafetensors) {
  const TestFolder folder;
  Builder file;
  for (int i = 0; i < kTensors; ++i) {
    file.add(std::to_string(i), "U8", "[]", 1);
  }
  file.save(folder / "x");
  expect_within(folder / "x", file.header_bytes());
}

TEST(Memory, StoredForm) {
  const TestFolder folder;
  Builder file(R"("__metadata__":{"trit.version":"1","trit.layout":"rows-2bit","trit.scale":"multiply"})");
  for (int i = 0; i < kTensors / 2; ++i) {
    file.add(std::to_string(i), "U8", "[1,1]", 1).add(std::to_string(i) + "_scale", "F32", "[1]", 4);
  }
  file.save(folder / "x");
  expect_within(folder / "x", file.header_bytes());
}

TEST(Memory, Torchao) {
  const TestFolder folder;
  Builder file;
  for (int i = 0; i < kTensors / 2; ++i) {
    file.add(std::to_string(i) + ".int_data", "I8", "[1,1]", 1)
        .add(std::to_string(i) + ".scale", "F32", "[]", 4);
  }
  file.save(folder / "x");
  expect_within(folder / "x", file.header_bytes());
}

TEST(Memory, TransformersWithShards) {
  const TestFolder folder;
  Builder shards[2];
  std::string index = R"({"weight_map":{)";
  for (int i = 0; i < kTensors; ++i) {
    const std::string name = std::to_string(i);
    shards[i % 2].add(name, "F16", "[]", 2);
    index +=
        std::string(i == 0 ? "" : ",") + '"' + name + "\":\"" + (i % 2 == 0 ? "a" : "b") + ".safetensors\"";
  }
  index += "}}";
  shards[0].save(folder / "a.safetensors");
  shards[1].save(folder / "b.safetensors");
  write_file(folder / "model.safetensors.index.json", index);
  const std::string config = R"({"quantization_config": {"quant_method": "bitnet"}})";
  write_file(folder / "config.json", config);
  expect_within(folder.path(),
                index.size() + config.size() + shards[0].header_bytes() + shards[1].header_bytes());
}

TEST(Memory, GgufWithTensors) {
  const TestFolder folder;
  GgufBuilder file;
  for (int i = 0; i < kTensors; ++i) {
    file.tensor({std::to_string(i), {1}, 0, static_cast<std::uint64_t>(32 * i)});
  }
  const std::size_t header_bytes = file.build().size();
  file.data = std::string(32 * std::size_t{kTensors}, '\0');
  write_file(folder / "x", file.build());
  expect_within(folder / "x", header_bytes);
}

TEST(Memory, GgufWithPairs) {
  const TestFolder folder;
  GgufBuilder file;
  for (int i = 0; i < kTensors; ++i) {
    file.pair(std::to_string(i), 0, "x");
  }
  std::string names = GgufBuilder::number(std::uint32_t{8}) + GgufBuilder::number(std::uint64_t{kTensors});
  for (int i = 0; i < kTensors; ++i) {
    names += GgufBuilder::text("");
  }
  file.pair("names", 9, names).tensor({"a", {1}, 0, 0});
  const std::size_t header_bytes = file.build().size();
  file.data = std::string(32, '\0');
  write_file(folder / "x", file.build());
  expect_within(folder / "x", header_bytes);
}

/// Counts and sizes near every power of two, where the file has a few hundred bytes.
TEST(Memory, CountsThatLie) {
  constexpr std::size_t kNothing = 16'384;  // messages, paths, the parser
  const TestFolder folder;
  const auto expect_nothing = [&](const std::string& bytes) {
    write_file(folder / "x", bytes);
    EXPECT_LE(memory_of_opening(folder / "x"), kNothing);
  };
  for (int bit = 10; bit < 64; ++bit) {
    SCOPED_TRACE(bit);
    const std::uint64_t count = std::uint64_t{1} << bit;
    const std::string number = GgufBuilder::number(count);
    GgufBuilder file;
    file.extra_tensors = count;
    expect_nothing(file.build());
    file = {};
    file.pair_count = count;
    expect_nothing(file.build());
    expect_nothing(GgufBuilder().pair("x", 8, number).build());
    for (const std::uint32_t type : {0U, 8U, 10U}) {
      expect_nothing(GgufBuilder().pair("x", 9, GgufBuilder::number(type) + number).build());
    }
    for (const std::uint32_t type : {0U, 34U, 35U, 36U, 42U}) {
      expect_nothing(GgufBuilder().architecture("bitnet").tensor({"a", {count}, type, 0}).build());
      expect_nothing(GgufBuilder().architecture("bitnet").tensor({"a", {256, count}, type, 0}).build());
      expect_nothing(GgufBuilder().architecture("bitnet").tensor({"a", {256}, type, count}).build());
    }
    expect_nothing(number + "{}");
    const std::string text = std::to_string(count);
    for (const std::string& header :
         {R"({"w":{"dtype":"U8","shape":[)" + text + R"(],"data_offsets":[0,)" + text + "]}}",
          R"({"w":{"dtype":"F32","shape":[0,)" + text + R"(],"data_offsets":[0,0]}})",
          R"({"w":{"dtype":"U8","shape":[4],"data_offsets":[)" + text + ',' + text + "]}}",
          R"({"w":{"dtype":"U8","shape":[0,)" + text +
              R"(],"data_offsets":[0,0]},"w_scale":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})"}) {
      expect_nothing(GgufBuilder::number(std::uint64_t{header.size()}) + header + "\1\1\1\1");
    }
  }
}

}  // namespace
}  // namespace trit::io
