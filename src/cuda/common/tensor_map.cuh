// SPDX-License-Identifier: MIT
//
// Descriptions of matrices for the copy engine of compute capability 9.0 (TMA). A box of a matrix lies in
// shared memory as rows of 128 bytes; with the 128-byte swizzle the 16-byte chunk c of row r lies at chunk c
// ^ (r % 8).
#pragma once

#include <cstdint>

#include "cuda/common/platform.cuh"

#if defined(__CUDACC__)
#include <cuda.h>
#endif

namespace trit::cuda {

/// A row-major matrix [rows, row_elements] and the box that one copy moves, `box_rows` rows of 128 bytes.
struct MatrixDescription {
  const void* data = nullptr;      // 16-byte aligned
  std::int32_t element_bytes = 1;  // 1 or 2
  std::int64_t row_elements = 0;   // what lies beyond reads as zeros and is not written
  std::int64_t rows = 0;
  std::int64_t stride_bytes = 0;  // between rows, a multiple of 16, below 2^40
  std::int32_t box_rows = 0;      // 1..256
};

#if defined(__CUDACC__)
using TensorMap = CUtensorMap;
#else
using TensorMap = MatrixDescription;
#endif

/// Throws Error where the matrix does not fit the rules above or the driver knows no tensor maps.
TensorMap make_tensor_map(const MatrixDescription& matrix, const char* name);

}  // namespace trit::cuda
