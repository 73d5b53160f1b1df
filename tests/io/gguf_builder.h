// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "io/test_folder.h"
#include "trit/io.h"

namespace trit::test {

/// A GGUF file byte by byte, for files that the writer would never write.
struct GgufBuilder {
  struct Tensor {
    std::string name;
    std::vector<std::uint64_t> dimensions;  // innermost first
    std::uint32_t type = 0;
    std::uint64_t offset = 0;
  };
  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::string pairs;
  std::uint64_t pair_count = 0;
  std::vector<Tensor> tensors;
  std::uint64_t extra_tensors = 0;  // that the count lies about
  std::string data;

  template <typename Value>
  static std::string number(Value value) {
    std::string bytes(sizeof(Value), '\0');
    std::memcpy(bytes.data(), &value, sizeof(Value));
    return bytes;
  }
  static std::string text(const std::string& value) {
    return number(static_cast<std::uint64_t>(value.size())) + value;
  }
  GgufBuilder& pair(const std::string& key, std::uint32_t type, const std::string& value) {
    pairs += text(key) + number(type) + value;
    ++pair_count;
    return *this;
  }
  GgufBuilder& architecture(const std::string& name) { return pair("general.architecture", 8, text(name)); }
  GgufBuilder& tensor(const Tensor& added) {
    tensors.push_back(added);
    return *this;
  }
  std::string build() const {
    std::string bytes = magic + number(version) +
                        number(static_cast<std::uint64_t>(tensors.size()) + extra_tensors) +
                        number(pair_count) + pairs;
    for (const Tensor& tensor : tensors) {
      bytes += text(tensor.name) + number(static_cast<std::uint32_t>(tensor.dimensions.size()));
      for (const std::uint64_t dimension : tensor.dimensions) {
        bytes += number(dimension);
      }
      bytes += number(tensor.type) + number(tensor.offset);
    }
    bytes.resize((bytes.size() + 31) / 32 * 32);
    return bytes + data;
  }
};

/// A file with one F32 tensor of four elements.
inline GgufBuilder plain_gguf() {
  GgufBuilder file;
  file.architecture("trit").tensor({"a", {4}, 0, 0});
  file.data = std::string(32, '\0');
  return file;
}

inline void expect_refused(const std::string& bytes, const std::vector<std::string>& parts) {
  const TestFolder folder;
  write_file(folder / "x.gguf", bytes);
  expect_error([&] { io::open_checkpoint(folder / "x.gguf"); }, parts);
}

}  // namespace trit::test
