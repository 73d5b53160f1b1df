// SPDX-License-Identifier: MIT
//
// A folder of transformers: config.json, index and two shards, cut out of the input: three u16 lengths, then
// the texts.
#include <fstream>

#include "fuzz_file.h"

namespace {

/// In /dev/shm, one of each process.
const std::filesystem::path& folder() {
  static const std::filesystem::path path = [] {
    const std::filesystem::path made = "/dev/shm/trit-fuzz-" + std::to_string(::getpid());
    std::filesystem::create_directories(made);
    std::atexit([] { std::filesystem::remove_all("/dev/shm/trit-fuzz-" + std::to_string(::getpid())); });
    return made;
  }();
  return path;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr const char* kNames[] = {"config.json", "model.safetensors.index.json", "a.safetensors",
                                    "b.safetensors"};
  constexpr std::size_t kLengths = 3;
  if (size < 2 * kLengths) {
    return 0;
  }
  std::size_t position = 2 * kLengths;
  for (std::size_t i = 0; i < 4; ++i) {
    const std::size_t left = size - position;
    const std::size_t length =
        i < kLengths ? std::min<std::size_t>(data[2 * i] | data[2 * i + 1] << 8, left) : left;
    std::ofstream(folder() / kNames[i], std::ios::binary)
        .write(reinterpret_cast<const char*>(data + position), static_cast<std::streamsize>(length));
    position += length;
  }
  try {
    trit::fuzz::read_everything(*trit::io::open_checkpoint(folder()));
  } catch (const trit::Error&) {
  }
  return 0;
}
