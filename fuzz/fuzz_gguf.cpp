// SPDX-License-Identifier: MIT
//
// GGUF. The magic is added, so that the fuzzer need not find it; what lies in its place chooses what types 42
// and 143 are taken for. A second "GGUF" in the input begins the second part of a split model.
#include <algorithm>
#include <array>
#include <string_view>

#include "fuzz_file.h"
#include "io/llama_cpp_names.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::string_view kMagic = "GGUF";
  if (size < kMagic.size()) {
    return 0;
  }
  std::vector<std::uint8_t> bytes(data, data + size);
  std::copy(kMagic.begin(), kMagic.end(), bytes.begin());
  const auto second = std::search(bytes.begin() + 1, bytes.end(), kMagic.begin(), kMagic.end());
  trit::fuzz::set_file("x-00002-of-00002.gguf", {second, bytes.end()});
  constexpr std::array<const char*, 4> kTypes{"", "q2_0", "pq2_0", "ptq1_0"};
  const char* const type = kTypes[data[0] % kTypes.size()];
  const auto open = [type](const char* path) {
    return trit::io::open_checkpoint(path, {.block_format = type});
  };
  const std::span<const std::uint8_t> first(bytes.begin(), second);
  trit::fuzz::read_file(first, open, "x-00001-of-00002.gguf");
  // The same under transformers' names: hyperparameters that lie, rows that are reordered.
  try {
    const auto checkpoint = open("x-00001-of-00002.gguf");
    if (const auto renamed = trit::io::with_huggingface_names(*checkpoint)) {
      trit::fuzz::read_everything(*renamed);
    }
  } catch (const trit::Error&) {
  }
  return 0;
}
