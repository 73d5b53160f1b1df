// SPDX-License-Identifier: MIT
#pragma once

#include "cuda/rows/norm_quant_scale.cuh"
#include "trit/cuda.h"

namespace trit::cuda {

struct GroupArguments {
  NormQuantArguments row;
  int group;          // inputs, or 0: one scale of the row
  int groups;         // of a row
  int block;          // of the rotation, or 0
  float block_scale;  // 1 / sqrt(block)
  const std::int8_t* signs;
};

/// norm_quant with a rotation or with group scales (norm_quant_groups.cu); all other arguments are checked, and are
/// in `row`. Throws Error for a rotation that is not valid, or of a row that does not fit in shared memory.
void norm_quant_groups(const Device& device, const NormQuant& args, NormQuantArguments row, Stream stream);

/// The same for rows that a kernel holds in registers (norm_quant_groups_held.cu); false where none does.
bool norm_quant_groups_held(const Device& device, const NormQuant& args, const GroupArguments& arguments,
                            Stream stream);

}  // namespace trit::cuda
