// SPDX-License-Identifier: MIT
#include "runtime/checked_layers.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>

#include "format/code_two.h"
#include "io/codes_scan.h"
#include "trit/crc32c.h"

namespace trit::runtime {
namespace {

/// The bits past the last column of each of the rows, which must be 0.
bool is_padded(std::span<const std::uint8_t> rows, std::int64_t in_features) {
  const unsigned padding = padding_bits(in_features);
  if (padding == 0) {
    return true;
  }
  const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(in_features));
  unsigned found = 0;
  for (std::size_t last = row_bytes - 1; last < rows.size(); last += row_bytes) {
    found |= rows[last] & padding;
  }
  return found == 0;
}

/// What is known of a matrix; its parts come in any order, from several threads.
struct alignas(64) Seen {
  std::atomic<std::uint32_t> crc{0};
  std::atomic<bool> bad{false};
};

}  // namespace

std::vector<PackedLinear> prepare_checked(const CpuKernels& kernels, Parallel& parallel,
                                          std::span<StoredMatrix> matrices, PanelFormat format,
                                          const std::function<void(const StoredMatrix&)>& after) {
  std::vector<TernaryView> weights;
  for (const StoredMatrix& matrix : matrices) {
    weights.push_back(matrix.weight);
  }
  std::vector<Seen> seen(matrices.size());
  PreparationHooks hooks;
  hooks.before_rows = [&](std::size_t matrix, std::int64_t first_row, std::span<const std::uint8_t> codes) {
    const TernaryView& weight = weights[matrix];
    const io::CodesScan scan = io::scan_codes(codes, {});
    if (scan.has_two || !is_padded(codes, weight.in_features)) {
      seen[matrix].bad = true;
    }
    // The CRC of the whole is the sum of those of its parts, each moved past what follows it.
    const auto end =
        static_cast<std::size_t>(first_row * packed_row_bytes(weight.in_features)) + codes.size();
    seen[matrix].crc ^= crc32c_combine(scan.crc, 0, weight.codes.size() - end);
  };
  if (after) {
    hooks.after_matrix = [&](std::size_t matrix) { after(matrices[matrix]); };
  }
  std::vector<PackedLinear> layers = PackedLinear::prepare(kernels, parallel, weights, format, hooks);
  for (std::size_t i = 0; i < matrices.size(); ++i) {
    matrices[i].codes_crc = seen[i].crc;
    if (seen[i].bad || !std::ranges::all_of(weights[i].scale,
                                            [](float scale) { return std::isfinite(scale) && scale > 0; })) {
      check(weights[i], matrices[i].name);  // throws an Error that says what is wrong and where
    }
  }
  return layers;
}

}  // namespace trit::runtime
