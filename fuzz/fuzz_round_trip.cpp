// SPDX-License-Identifier: MIT
//
// Stored form -> another format -> back is the identity: codes exactly, scales after the rounding of the format.
// Input: format, rows, columns / 64, scale per row, then codes (two bits each, modulo 3) and scales.
#include <unistd.h>

#include <algorithm>
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

TernaryMatrix matrix_of(Input& input, std::int64_t rows, std::int64_t columns, bool row_scale) {
  TernaryMatrix matrix{rows, columns, {}, {}};
  const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(columns));
  matrix.codes.resize(static_cast<std::size_t>(rows) * row_bytes);
  std::vector<std::int8_t> t(static_cast<std::size_t>(columns));
  for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
    for (std::int8_t& weight : t) {
      weight = static_cast<std::int8_t>(input.next() % 3 - 1);
    }
    pack_row(t, std::span(matrix.codes).subspan(row * row_bytes, row_bytes));
  }
  matrix.scale.resize(row_scale ? static_cast<std::size_t>(rows) : 1);
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
  const int kind = input.next() % 6;
  io::ConvertOptions options;
  options.to = kind < 3 ? io::Format::gguf : kind < 5 ? io::Format::huggingface : io::Format::trit;
  options.block_format = kind == 0 ? "tq1_0" : kind == 1 ? "tq2_0" : "q2_0";
  options.scale_convention = kind == 3 ? io::ScaleConvention::divide : io::ScaleConvention::multiply;
  const std::int64_t rows = (1 + input.next() % 8) * (options.to == io::Format::huggingface ? 4 : 1);
  const std::int64_t block = kind < 2 ? 256 : kind == 2 ? 64 : 1;
  const std::int64_t columns = (1 + input.next() % (block == 1 ? 200 : 3)) * block;
  const bool row_scale = input.next() % 2 == 1 && options.to != io::Format::huggingface;
  const TernaryMatrix matrix = matrix_of(input, rows, columns, row_scale);

  static const std::filesystem::path path = "/dev/shm/trit-round-trip-" + std::to_string(::getpid());
  io::MemoryCheckpoint model;
  model.add("w.weight", matrix);
  std::filesystem::remove_all(path);
  io::convert(model, path, options);
  const auto other = io::open_checkpoint(path);
  const io::TensorInfo& tensor = other->tensors()[0];
  require(other->tensors().size() == 1 && tensor.shape[0] == rows && tensor.shape[1] == columns, "shape");
  std::vector<std::uint8_t> codes(matrix.codes.size());
  other->read_codes(tensor, 0, rows, codes);
  require(codes == matrix.codes, "codes");
  const std::vector<float> scale = other->scale(tensor);
  for (std::size_t i = 0; i < matrix.scale.size(); ++i) {
    const float wanted = options.to == io::Format::gguf ? float16_to_float(float_to_float16(matrix.scale[i]))
                         : kind == 3                    ? 1.0F / (1.0F / matrix.scale[i])
                                                        : matrix.scale[i];
    // The scale of zeros means nothing; GGUF has another where float16 holds it badly.
    const auto row_bytes = matrix.codes.size() / static_cast<std::size_t>(rows);
    const auto of_scale = matrix.scale.size() == 1
                              ? std::span(matrix.codes)
                              : std::span(matrix.codes).subspan(i * row_bytes, row_bytes);
    const bool zeros = options.to == io::Format::gguf &&
                       std::ranges::all_of(of_scale, [](std::uint8_t byte) { return byte == 0; });
    require(zeros || scale[scale.size() == 1 ? 0 : i] == wanted, "scale");
  }
  std::filesystem::remove_all(path);
  return 0;
}
