// SPDX-License-Identifier: MIT
//
// Ternary layers from a file: checked and summed while they are prepared, so that their codes are read from
// memory once.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "trit/linear.h"

namespace trit::runtime {

/// A matrix of a file.
struct StoredMatrix {
  TernaryView weight;
  std::string name;             // for errors
  std::uint32_t codes_crc = 0;  // out: CRC-32C of the codes
};

/// PackedLinear::prepare for `matrices`. Checks each as trit::check does (its Error names the matrix) and
/// writes its checksum. `after`, if any, is called on one of the threads when all codes of a matrix have been
/// read; only an Error reads them again.
std::vector<PackedLinear> prepare_checked(const CpuKernels& kernels, Parallel& parallel,
                                          std::span<StoredMatrix> matrices, PanelFormat format,
                                          const std::function<void(const StoredMatrix&)>& after = {});

}  // namespace trit::runtime
