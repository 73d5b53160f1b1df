// SPDX-License-Identifier: MIT
//
// safetensors: the stored form, torchao's packing, and transformers' packed tensors without a config.json.
#include "fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  trit::fuzz::read_file({data, size}, {.scale_convention = trit::io::ScaleConvention::divide});
  return 0;
}
