// SPDX-License-Identifier: MIT
//
// Ternary values in float matrices: the size of the groups (a byte, times 32; 0: to be found), then a
// safetensors file. What is read must be the values that lie in it.
#include <cmath>
#include <cstdlib>

#include "fuzz_file.h"
#include "io/safetensors_checkpoint.h"

namespace {

using namespace trit;

void compare(const io::Checkpoint& source, const io::Checkpoint& ternary, const io::TensorInfo& tensor) {
  const std::int64_t columns = tensor.shape[1];
  const std::int64_t group = ternary.group(tensor);
  const std::vector<float> scale = ternary.scale(tensor);
  std::vector<float> values(static_cast<std::size_t>(columns));
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(packed_row_bytes(columns)));
  std::vector<std::int8_t> t(values.size());
  for (std::int64_t row = 0; row < tensor.shape[0]; ++row) {
    source.read_floats(*source.find(tensor.name), row * columns, values);
    ternary.read_codes(tensor, row, 1, codes);
    unpack_row(codes, t);
    for (std::int64_t k = 0; k < columns; ++k) {
      const std::int64_t at =
          scale.size() == 1 ? 0 : row * groups_of(columns, group) + (group == 0 ? 0 : k / group);
      if (static_cast<float>(t[static_cast<std::size_t>(k)]) * scale[static_cast<std::size_t>(at)] !=
          values[static_cast<std::size_t>(k)]) {
        std::abort();
      }
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) {
    return 0;
  }
  const std::vector<std::uint8_t> bytes = fuzz::framed_safetensors({data + 1, size - 1});
  fuzz::set_file("x", bytes);
  try {
    const auto source = io::open_plain(io::SafetensorsFile::open("x"));
    const auto ternary = io::ternary_values(*source, 32 * std::int64_t{data[0]});
    fuzz::read_everything(*ternary);
    for (const io::TensorInfo& tensor : ternary->tensors()) {
      if (tensor.type == "float-values") {
        compare(*source, *ternary, tensor);
      }
    }
  } catch (const Error&) {
  }
  return 0;
}
