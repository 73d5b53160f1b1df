// SPDX-License-Identifier: MIT
//
// Any safetensors file, including its length field: the header, then the reader for its content.
#include "fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  trit::fuzz::read_file({data, size}, [](const char* path) {
    return trit::io::open_checkpoint(path, {.scale_convention = trit::io::ScaleConvention::divide});
  });
  return 0;
}
