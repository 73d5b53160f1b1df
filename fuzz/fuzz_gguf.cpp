// SPDX-License-Identifier: MIT
//
// GGUF. The magic is given: it would take the fuzzer's time.
#include <algorithm>

#include "fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 4) {
    return 0;
  }
  std::vector<std::uint8_t> bytes(data, data + size);
  std::copy_n("GGUF", 4, bytes.begin());
  trit::fuzz::read_file(bytes, [](const char* path) { return trit::io::open_checkpoint(path); });
  return 0;
}
