// SPDX-License-Identifier: MIT
//
// Stored form -> another format -> back is the identity: codes exactly, scales after the rounding of the format.
// Input: format, rows, columns / 64, granularity of the scale, then codes (two bits each, modulo 3) and scales.
#include <unistd.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <span>

#include "trit/error.h"
#include "trit/io.h"

namespace {

using namespace trit;

struct Input {
  const std::uint8_t* data;
  std::size_t size;
  std::size_t position = 0;
  std::uint8_t next() { return position < size ? data[position++] : std::uint8_t{0}; }
};

/// With a scale, one per row, or one per group.
TernaryMatrix matrix_of(Input& input, std::int64_t rows, std::int64_t columns, bool row_scale,
                        std::int64_t group) {
  TernaryMatrix matrix{rows, columns, {}, {}, group};
  const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(columns));
  matrix.codes.resize(static_cast<std::size_t>(rows) * row_bytes);
  std::vector<std::int8_t> t(static_cast<std::size_t>(columns));
  for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
    for (std::int8_t& weight : t) {
      weight = static_cast<std::int8_t>(input.next() % 3 - 1);
    }
    pack_row(t, std::span(matrix.codes).subspan(row * row_bytes, row_bytes));
  }
  matrix.scale.resize(group != 0  ? static_cast<std::size_t>(rows * groups_of(columns, group))
                      : row_scale ? static_cast<std::size_t>(rows)
                                  : 1);
  for (float& scale : matrix.scale) {
    const auto mantissa = static_cast<float>(1 + input.next() + 256 * input.next());
    scale = std::ldexp(mantissa, input.next() % 20 - 24);
  }
  return matrix;
}

void require(bool condition, const char* what) {
  if (!condition) {
    std::fprintf(stderr, "round trip: %s\n", what);
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input{data, size};
  const int kind = input.next() % 9;
  io::ConvertOptions options;
  constexpr std::array<const char*, 5> kTypes{"tq1_0", "tq2_0", "q2_0", "pq2_0", "ptq1_0"};
  constexpr std::array<std::int64_t, 5> kBlocks{256, 256, 64, 128, 128};
  const bool gguf = kind < 5;
  options.to = gguf        ? io::Format::gguf
               : kind < 7  ? io::Format::huggingface
               : kind == 7 ? io::Format::safetensors
                           : io::Format::trit;
  options.block_format = gguf ? kTypes[static_cast<std::size_t>(kind)] : "";
  options.scale_convention = kind == 5 ? io::ScaleConvention::divide : io::ScaleConvention::multiply;
  const std::int64_t rows = (1 + input.next() % 8) * (options.to == io::Format::huggingface ? 4 : 1);
  const std::int64_t block = gguf ? kBlocks[static_cast<std::size_t>(kind)] : 1;
  const std::int64_t columns = (1 + input.next() % (block == 1 ? 200 : 3)) * block;
  const int granularity = options.to == io::Format::huggingface ? 0 : input.next() % 4;
  const std::int64_t group = granularity < 2 ? 0 : gguf ? (granularity - 1) * block : 32 * (granularity - 1);
  TernaryMatrix matrix = matrix_of(input, rows, columns, granularity == 1, group);

  static const std::filesystem::path path = "/dev/shm/trit-round-trip-" + std::to_string(::getpid());
  io::MemoryCheckpoint model;
  model.add("w.weight", matrix);
  std::filesystem::remove_all(path);
  io::convert(model, path, options);
  const auto opened = io::open_checkpoint(path);
  const auto values = kind == 7 ? io::ternary_values(*opened, group) : nullptr;
  const io::Checkpoint* const other = values ? values.get() : opened.get();
  const io::TensorInfo& tensor = other->tensors()[0];
  require(other->tensors().size() == 1 && tensor.shape[0] == rows && tensor.shape[1] == columns, "shape");
  std::vector<std::uint8_t> codes(matrix.codes.size());
  other->read_codes(tensor, 0, rows, codes);
  require(codes == matrix.codes, "codes");
  // The scale of zeros means nothing, which diff() knows.
  for (float& scale : matrix.scale) {
    scale = gguf ? float16_to_float(float_to_float16(scale)) : kind == 5 ? 1.0F / (1.0F / scale) : scale;
  }
  io::MemoryCheckpoint wanted;
  wanted.add("w.weight", matrix);
  require(io::diff(wanted, *other).empty(), "scale");
  std::filesystem::remove_all(path);
  return 0;
}
