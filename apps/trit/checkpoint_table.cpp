// SPDX-License-Identifier: MIT
#include "checkpoint_table.h"

namespace trit::cli {

std::vector<LayerRow> describe(const io::Checkpoint& checkpoint, bool with_codes) {
  std::vector<LayerRow> rows;
  for (const io::TensorInfo& tensor : checkpoint.tensors()) {
    LayerRow row;
    row.name = tensor.name;
    row.type = tensor.type;
    const auto shape = tensor.stack.empty() ? tensor.shape : tensor.stack;
    row.shape.assign(shape.begin(), shape.end());
    row.stored_bytes = tensor.stored_bytes;
    double weights = 1;
    for (const std::int64_t size : tensor.shape) {
      weights *= static_cast<double>(size);
    }
    row.float_bytes = static_cast<std::uint64_t>(4 * weights);
    row.bits_per_weight = weights == 0 ? 0 : 8 * static_cast<double>(row.stored_bytes) / weights;
    if (tensor.kind == io::TensorKind::ternary) {
      // A GGUF file stores its scales in the blocks: knowing them requires reading the tensor.
      if (checkpoint.format() != io::Format::gguf || with_codes) {
        row.scale = checkpoint.scale(tensor);
      }
      if (with_codes) {
        const io::CodeCounts counts = io::count_codes(checkpoint, tensor);
        row.codes =
            CodeCounts{static_cast<std::uint64_t>(counts.minus), static_cast<std::uint64_t>(counts.zero),
                       static_cast<std::uint64_t>(counts.plus)};
      }
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace trit::cli
