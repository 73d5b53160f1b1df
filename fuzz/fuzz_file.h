// SPDX-License-Identifier: MIT
//
// Shared by the reader targets: the input as a file, of which everything is read. An Error is correct for a bad
// file; libFuzzer finds everything else (a crash, a sanitizer report, a hang, another exception).
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "memory_files.h"
#include "trit/error.h"
#include "trit/io.h"

namespace trit::fuzz {

/// Reads all of a checkpoint. Errors of one tensor do not keep the others from being read.
inline void read_everything(const io::Checkpoint& checkpoint) {
  for (const io::TensorInfo& tensor : checkpoint.tensors()) {
    try {
      if (tensor.kind == io::TensorKind::ternary) {
        checkpoint.scale(tensor);
        const std::int64_t groups = groups_of(tensor.shape[1], checkpoint.group(tensor));
        std::vector<float> scales(static_cast<std::size_t>(groups));
        const std::int64_t row_bytes = packed_row_bytes(tensor.shape[1]);
        std::vector<std::uint8_t> codes(static_cast<std::size_t>(row_bytes));
        for (std::int64_t row = 0; row < tensor.shape[0]; ++row) {
          checkpoint.read_codes(tensor, row, 1, codes);
          if (checkpoint.group(tensor) != 0) {
            checkpoint.read_group_scales(tensor, row, 1, scales);
          }
        }
      } else if (tensor.kind == io::TensorKind::floating) {
        std::int64_t count = 1;
        for (const std::int64_t size : tensor.shape) {
          count *= size;
        }
        std::vector<float> values(static_cast<std::size_t>(count));
        checkpoint.read_floats(tensor, 0, values);
      } else if (tensor.stored_bytes != 0) {
        std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.stored_bytes));
        checkpoint.read_elements(tensor, 0, bytes);
      }
      checkpoint.release(tensor);
    } catch (const Error&) {
    }
  }
}

/// `open` gives a checkpoint of the file `path`, which has these bytes; all of it is read.
template <typename Open>
void read_file(std::span<const std::uint8_t> bytes, const Open& open, const char* path = "x") {
  set_file(path, bytes);
  try {
    const std::unique_ptr<io::Checkpoint> checkpoint = open(path);
    read_everything(*checkpoint);
  } catch (const Error&) {
  }
}

/// A safetensors file whose length field is right, since a fuzzer would mostly break it: the input begins
/// with the header's length, u16, no more than what follows.
inline std::vector<std::uint8_t> framed_safetensors(std::span<const std::uint8_t> input) {
  if (input.size() < 2) {
    return {};
  }
  const std::size_t length =
      std::min<std::size_t>(input[0] | static_cast<unsigned>(input[1]) << 8, input.size() - 2);
  std::vector<std::uint8_t> bytes{static_cast<std::uint8_t>(length), static_cast<std::uint8_t>(length >> 8)};
  bytes.resize(8);
  bytes.insert(bytes.end(), input.begin() + 2, input.end());
  return bytes;
}

}  // namespace trit::fuzz
