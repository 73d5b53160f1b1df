// SPDX-License-Identifier: MIT
//
// The ternary blocks of GGUF, in a header that is right: type, rows, blocks in a row, then their bytes. What is
// read must be what a matrix may hold (format.h).
#include "fuzz_file.h"
#include "io/codecs/blocks.h"
#include "io/gguf.h"

namespace {

using namespace trit;

std::vector<std::uint8_t> file_of(const io::BlockFormat& format, std::uint64_t rows, std::uint64_t blocks,
                                  std::span<const std::uint8_t> data) {
  io::gguf::ByteWriter file;
  file.append(std::as_bytes(std::span(io::gguf::kMagic)));
  file.number(io::gguf::kVersion);
  file.number(std::uint64_t{1});
  file.number(std::uint64_t{1});
  file.string(io::gguf::kBlockFormatKey);
  file.number(io::gguf::kString);
  file.string(format.option);
  file.string("w.weight");
  file.number(std::uint32_t{2});
  file.number(blocks * static_cast<std::uint64_t>(format.weights));
  file.number(rows);
  file.number(format.ggml_type);
  file.number(std::uint64_t{0});
  file.pad(io::gguf::kDefaultAlignment);
  std::vector<std::uint8_t> bytes(file.bytes().size() +
                                  rows * blocks * static_cast<std::uint64_t>(format.bytes));
  const auto* header = reinterpret_cast<const std::uint8_t*>(file.bytes().data());
  std::copy_n(header, file.bytes().size(), bytes.begin());
  std::copy_n(data.begin(), std::min(data.size(), bytes.size() - file.bytes().size()),
              bytes.begin() + static_cast<std::ptrdiff_t>(file.bytes().size()));
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 3) {
    return 0;
  }
  const auto formats = io::block_formats();
  const io::BlockFormat& format = *formats[data[0] % formats.size()];
  fuzz::set_file("x", file_of(format, 1 + data[1] % 4U, 1 + data[2] % 4U, {data + 3, size - 3}));
  try {
    const auto checkpoint = io::open_checkpoint("x");
    const io::TensorInfo& tensor = checkpoint->tensors()[0];
    TernaryMatrix matrix{tensor.shape[0], tensor.shape[1],
                         std::vector<std::uint8_t>(
                             static_cast<std::size_t>(tensor.shape[0] * packed_row_bytes(tensor.shape[1]))),
                         checkpoint->scale(tensor), checkpoint->group(tensor)};
    checkpoint->read_codes(tensor, 0, tensor.shape[0], matrix.codes);
    try {
      check(matrix.view(), "w.weight");
    } catch (const Error&) {
      __builtin_trap();
    }
  } catch (const Error&) {
  }
  return 0;
}
