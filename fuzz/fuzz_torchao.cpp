// SPDX-License-Identifier: MIT
//
// torchao's packed int8, and safetensors files with nothing packed.
#include "fuzz_file.h"
#include "io/safetensors_checkpoint.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  trit::fuzz::read_file(trit::fuzz::framed_safetensors({data, size}), [](const char* path) {
    return trit::io::open_plain(trit::io::SafetensorsFile::open(path));
  });
  return 0;
}
