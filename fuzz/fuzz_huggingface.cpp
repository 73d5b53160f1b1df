// SPDX-License-Identifier: MIT
//
// A folder of transformers: config.json, index and two shards, cut out of the input: three u16 lengths, then
// the texts. Without an index the first shard is opened by its name. The length fields of the shards are correct.
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <fstream>

#include "fuzz_file.h"

namespace {

constexpr std::array<const char*, 4> kNames{"config.json", "model.safetensors.index.json", "a.safetensors",
                                            "b.safetensors"};

/// Empty files under the names, since the reader asks the file system which of them exist.
const std::filesystem::path& folder() {
  static const std::filesystem::path path = [] {
    const std::filesystem::path made = "/dev/shm/trit-fuzz-" + std::to_string(::getpid());
    std::filesystem::create_directories(made);
    for (const char* name : kNames) {
      std::ofstream(made / name).put('\n');
    }
    std::atexit([] { std::filesystem::remove_all("/dev/shm/trit-fuzz-" + std::to_string(::getpid())); });
    return made;
  }();
  return path;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t kLengths = 3;
  if (size < 2 * kLengths) {
    return 0;
  }
  static const std::array<std::string, 4> paths{folder() / kNames[0], folder() / kNames[1],
                                                folder() / kNames[2], folder() / kNames[3]};
  std::span<const std::uint8_t> left(data + 2 * kLengths, size - 2 * kLengths);
  bool has_index = false;
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    const std::size_t length =
        i < kLengths
            ? std::min<std::size_t>(data[2 * i] | static_cast<unsigned>(data[2 * i + 1]) << 8, left.size())
            : left.size();
    const auto part = left.first(length);
    if (i < 2) {
      trit::fuzz::set_file(paths[i], part);
    } else {
      trit::fuzz::set_file(paths[i], trit::fuzz::framed_safetensors(part));
    }
    has_index = has_index || (i == 1 && length > 0);
    left = left.subspan(length);
  }
  try {
    trit::fuzz::read_everything(*trit::io::open_checkpoint(paths[has_index ? 1 : 2]));
  } catch (const trit::Error&) {
  }
  return 0;
}
