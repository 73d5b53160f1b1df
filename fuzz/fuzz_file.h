// SPDX-License-Identifier: MIT
//
// What the reader targets share: the input as a file in memory, and everything read of it. An Error is the
// right answer to a bad file; all else (a crash, a sanitizer's report, a hang, another exception) is found by
// libFuzzer.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "trit/error.h"
#include "trit/io.h"

namespace trit::fuzz {

/// A file without a disk: the readers map files.
class MemoryFile {
 public:
  explicit MemoryFile(std::span<const std::uint8_t> bytes) : descriptor_(::memfd_create("fuzz", 0)) {
    if (descriptor_ < 0 ||
        ::write(descriptor_, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) {
      std::abort();
    }
  }
  ~MemoryFile() { ::close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::filesystem::path path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_;
};

/// Reads all of a checkpoint. Errors of one tensor do not keep the others from being read.
inline void read_everything(const io::Checkpoint& checkpoint) {
  for (const io::TensorInfo& tensor : checkpoint.tensors()) {
    try {
      if (tensor.kind == io::TensorKind::ternary) {
        checkpoint.scale(tensor);
        const std::int64_t row_bytes = packed_row_bytes(tensor.shape[1]);
        std::vector<std::uint8_t> codes(static_cast<std::size_t>(row_bytes));
        for (std::int64_t row = 0; row < tensor.shape[0]; ++row) {
          checkpoint.read_codes(tensor, row, 1, codes);
        }
      } else if (tensor.kind == io::TensorKind::floating) {
        std::int64_t count = 1;
        for (const std::int64_t size : tensor.shape) {
          count *= size;
        }
        std::vector<float> values(static_cast<std::size_t>(count));
        checkpoint.read_floats(tensor, 0, values);
      }
    } catch (const Error&) {
    }
  }
}

/// open_checkpoint and read_everything on a file with these bytes.
inline void read_file(std::span<const std::uint8_t> bytes, const io::OpenOptions& options = {}) {
  const MemoryFile file(bytes);
  try {
    read_everything(*io::open_checkpoint(file.path(), options));
  } catch (const Error&) {
  }
}

}  // namespace trit::fuzz
