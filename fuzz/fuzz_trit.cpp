// SPDX-License-Identifier: MIT
//
// This library's stored form.
#include "fuzz_file.h"
#include "io/safetensors_checkpoint.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  trit::fuzz::read_file(trit::fuzz::framed_safetensors({data, size}), [](const char* path) {
    return trit::io::open_trit(trit::io::SafetensorsFile::open(path));
  });
  return 0;
}
