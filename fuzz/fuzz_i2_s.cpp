// SPDX-License-Identifier: MIT
//
// I2_S in GGUF: the header around the matrix is valid, its sizes are fuzzed. Input: columns u64, rows u64, data.
#include <algorithm>

#include "fuzz_file.h"

namespace {

void put(std::vector<std::uint8_t>& bytes, std::uint64_t value, int size) {
  for (int i = 0; i < size; ++i) {
    bytes.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
  }
}

void put(std::vector<std::uint8_t>& bytes, std::string_view text) {
  put(bytes, text.size(), 8);
  bytes.insert(bytes.end(), text.begin(), text.end());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t kSizes = 16;
  if (size < kSizes) {
    return 0;
  }
  std::vector<std::uint8_t> bytes{'G', 'G', 'U', 'F'};
  put(bytes, 3, 4);  // version
  put(bytes, 1, 8);  // tensors
  put(bytes, 1, 8);  // pairs
  put(bytes, "general.architecture");
  put(bytes, 8, 4);  // a string
  put(bytes, "bitnet");
  put(bytes, "w.weight");
  put(bytes, 2, 4);  // dimensions
  bytes.insert(bytes.end(), data, data + kSizes);
  put(bytes, 36, 4);  // I2_S
  put(bytes, 0, 8);   // offset
  bytes.resize((bytes.size() + 31) / 32 * 32);
  bytes.insert(bytes.end(), data + kSizes, data + size);
  trit::fuzz::read_file(bytes, [](const char* path) { return trit::io::open_checkpoint(path); });
  return 0;
}
